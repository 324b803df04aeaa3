"""The updates of one iteration: builds each trained role's rows from decisions and advantages, for the schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hiplan.trace import Role
from hiplan.training.batch import Row, last_observation, rows_of
from hiplan.training.collect import Rollout
from hiplan.training.config import Stage
from hiplan.training.credit import Decision, Floats
from hiplan.training.iteration_metrics import role_metrics
from hiplan.training.learner import Learner


class RoleUpdates:
    """The argument of a schedule, which may call ``update`` for any role, in any order, any number of times.

    ``decisions`` and ``advantages`` (N,) are those of the trained roles. ``drop_zero``: see ``Algorithm``.
    """

    def __init__(
        self, learner: Learner, stage: Stage, rollouts: Sequence[Rollout], decisions: Sequence[Decision],
        advantages: Floats, iteration: int, drop_zero: bool = False,
    ) -> None:  # fmt: skip
        self.roles, self.decisions, self.advantages = stage.trains, decisions, advantages
        self._learner, self._iteration, self._drop_zero = learner, iteration, drop_zero
        self._episodes = [rollout.episode for rollout in rollouts]
        self._metrics: dict[Role, dict[str, Any]] = {role: role_metrics(decisions, role) for role in self.roles}
        learner.next_iteration()
        self._rows = {role: learner.rescored(role, self._rows_of(role)) for role in self.roles}

    def update(self, role: Role) -> None:
        """Update the role's weights on its rows."""
        if rows := self._rows[role]:
            anchor_rows = self._learner.anchor_rows(self._episodes)
            self._metrics[role] |= self._learner.update(role, rows, anchor_rows, self._iteration)

    def metrics(self) -> dict[str, Any]:
        """The metrics of all trained roles."""
        return {name: value for known in self._metrics.values() for name, value in known.items()}

    def _rows_of(self, role: Role) -> list[Row]:
        """The role's rows in all episodes with a decision of the role."""
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
