"""Credit per decision: what an estimator is told of each sampled answer, and the form that every estimator has."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from hiplan.trace import Kind, Role
from hiplan.training.credit.center import Floats


@dataclass(frozen=True)
class Decision:
    """One sampled answer (a segment) of a role.

    ``episode``: its place in the iteration's episodes; ``group``: episodes of one task and, where plans are given, of
    one plan. ``turn``: actions taken before it. ``revision``: of the plan in force when it was sampled, -1 without one.
    ``state_key``: the environment's state before it, empty where unknown and before the first action. ``reward``: the
    role's reward for this decision; they sum to the role's reward of the episode. ``tokens``: how many were sampled;
    ``surprisal``: their mean negative log-probability (nats). ``done``: the role's last decision in an episode that
    ended; ``truncated``: the same where a limit ended it. ``value``: an estimate of the return, where there is one.
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
"""One advantage per decision, (N,), of the decisions (N) of an iteration: those of all roles that learn."""

Modulator = Callable[[Sequence[Decision], Floats], Floats]
"""Advantages (N,) changed by what is known of the decisions (N)."""

Estimator = Callable[[Sequence[float], Sequence[Hashable]], Floats]
"""Advantages (E,) of episodes from their rewards (E) and groups (E)."""


def per_episode(estimator: Estimator) -> Credit:
    """Every decision of a role in an episode gets the advantage of the role's total reward there.

    Groups are those of (group, role): each role has its own rewards and statistics (Dr.MAS).
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
