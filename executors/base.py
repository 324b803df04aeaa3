"""The executor protocol."""

from __future__ import annotations

from typing import Protocol

from hiplan.effects import Effects
from hiplan.trace import Episode


class ExecutorProtocol(Protocol):
    """An executor; stateless, because the ``Episode`` argument has the whole state."""

    def act(self, episode: Episode, ready: tuple[int, ...]) -> Effects[str]:
        """The text of the next action. ``ready``: ids of the plan's ready steps."""
        ...
