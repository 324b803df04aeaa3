"""The planner protocol."""

from __future__ import annotations

from typing import Protocol

from hiplan.effects import Effects
from hiplan.plan import PlanRevision, ReplanReason
from hiplan.trace import Episode


class PlannerProtocol(Protocol):
    """A planner; stateless, because the ``Episode`` argument has the whole state."""

    def plan(self, episode: Episode) -> Effects[PlanRevision]:
        """The first plan, from the task and the first observation; ``plan=None`` for no plan."""
        ...

    def revise(self, episode: Episode, reason: ReplanReason, done: tuple[int, ...]) -> Effects[PlanRevision]:
        """A revised plan, or ``plan=None`` to keep the current one. ``done``: ids of the done steps."""
        ...
