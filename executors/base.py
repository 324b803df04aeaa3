"""What every executor offers."""

from __future__ import annotations

from typing import Protocol

from hiplan.effects import Effects
from hiplan.trace import Episode


class ExecutorProtocol(Protocol):
    """Stateless: everything about the episode is in the ``Episode`` it is handed."""

    def act(self, episode: Episode, ready: tuple[int, ...]) -> Effects[str]:
        """The next action's text. ``ready``: ids of the plan steps that could be worked on now."""
        ...
