"""``Decision``, the facts about one sampled answer that credit assignment uses, and the types of its functions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from hiplan.trace import Kind, Role
from hiplan.training.credit.center import Floats


@dataclass(frozen=True)
class Decision:
    """One sampled answer (segment) of a role.

    ``episode``: its index in the iteration. ``group``: the episodes with the same task and, for given plans, the same
    plan. ``turn``: the number of actions before it. ``revision``: the revision of the plan in force at sampling, -1
    without one. ``state_key``: the environment's state before it; empty if unknown or before the first action.
    ``reward``: the role's reward for this decision; these sum to the role's reward of the episode. ``tokens``: the
    number of sampled tokens. ``surprisal``: their mean negative log-probability (nats). ``done``: the role's last
    decision in the episode. ``truncated``: the same, if a limit ended the episode. ``value``: an estimate of the
    return, if there is one.
    """

    episode: int
    group: int
    task: str
    role: Role
    turn: int
    kind: Kind
    revision: int
    state_key: str
    reward: float
    tokens: int
    surprisal: float
    done: bool
    truncated: bool
    value: float | None = None


Credit = Callable[[Sequence[Decision]], Floats]
"""Maps the decisions (N) of all trained roles in an iteration to their advantages (N,)."""

Modulator = Callable[[Sequence[Decision], Floats], Floats]
"""Maps decisions (N) and their advantages (N,) to new advantages (N,)."""

Estimator = Callable[[Sequence[float], Sequence[Hashable]], Floats]
"""Maps the rewards (E) and groups (E) of episodes to their advantages (E,)."""


def per_episode(estimator: Estimator) -> Credit:
    """Lift an estimator of episodes: every decision of a role gets the advantage of the role's total episode reward.

    Statistics are over (group, role), so that each role has its own (Dr.MAS).
    """

    def credit(decisions: Sequence[Decision]) -> Floats:
        totals: dict[tuple[int, Role], float] = {}
        groups: dict[tuple[int, Role], Hashable] = {}
        for one in decisions:
            key = one.episode, one.role
            totals[key] = totals.get(key, 0.0) + one.reward
            groups[key] = one.group, one.role
        advantages = dict(zip(totals, estimator(list(totals.values()), list(groups.values())), strict=True))
        return np.array([advantages[one.episode, one.role] for one in decisions], dtype=np.float64)

    return credit
