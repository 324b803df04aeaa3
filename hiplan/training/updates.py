"""What a schedule updates: the rows of each role that learns, from an iteration's decisions and their advantages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hiplan.trace import Role
from hiplan.training import record
from hiplan.training.batch import Row, last_observation, rows_of
from hiplan.training.collect import Rollout
from hiplan.training.config import Stage
from hiplan.training.credit import Decision, Floats
from hiplan.training.learner import Learner


class RoleUpdates:
    """The updates of one iteration; ``update`` a role as often and in whatever order a schedule wants.

    ``decisions`` and ``advantages`` (N,) are of the roles that learn in the stage. ``drop_zero``: see ``Algorithm``.
    """

    def __init__(
        self, learner: Learner, stage: Stage, rollouts: Sequence[Rollout], decisions: Sequence[Decision],
        advantages: Floats, iteration: int, drop_zero: bool = False,
    ) -> None:  # fmt: skip
        self.roles, self.decisions, self.advantages = stage.trains, decisions, advantages
        self._learner, self._iteration, self._drop_zero = learner, iteration, drop_zero
        self._episodes = [rollout.episode for rollout in rollouts]
        self._figures: dict[Role, dict[str, Any]] = {role: record.of_decisions(decisions, role) for role in self.roles}
        learner.next_iteration()
        self._rows = {role: learner.rescored(role, self._rows_of(role)) for role in self.roles}

    def update(self, role: Role) -> None:
        """Update the role's weights by its rows."""
        if rows := self._rows[role]:
            held = self._learner.held(self._episodes)
            self._figures[role] |= self._learner.update(role, rows, held, self._iteration)

    def figures(self) -> dict[str, Any]:
        """For the metrics."""
        return {name: value for known in self._figures.values() for name, value in known.items()}

    def _rows_of(self, role: Role) -> list[Row]:
        """All rows of the episodes in which the role decided anything."""
        by_episode: dict[int, list[float]] = {}
        for one, advantage in zip(self.decisions, self.advantages, strict=True):
            if one.role == role:
                by_episode.setdefault(one.episode, []).append(float(advantage))
        model, rows = self._learner.model, []
        for place, advantages in by_episode.items():
            episode = self._episodes[place]
            last = last_observation(episode, model.prompts, model.specs[role].codec) if role == "executor" else []
            rows += rows_of(episode, role, advantages, last)
        return [row for row in rows if row.informative] if self._drop_zero else rows
