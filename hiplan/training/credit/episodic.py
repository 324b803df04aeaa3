"""Advantage estimators of episodes; ``per_episode`` lifts them to decisions."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from hiplan.training.credit.center import Floats, group_center

EPSILON = 1e-4


def grpo(rewards: Sequence[float], groups: Sequence[Hashable]) -> Floats:
    """GRPO (arXiv 2402.03300): ``(R - mean) / (std + 1e-4)`` within the group, std with ddof 1 as in TRL and verl."""
    return group_center(rewards, groups, scale="std1", epsilon=EPSILON)


def leave_one_out(rewards: Sequence[float], groups: Sequence[Hashable]) -> Floats:
    """RLOO (arXiv 2402.14740): each reward minus the mean reward of the other episodes in its group."""
    return group_center(rewards, groups, baseline="loo")
