"""Credit assignment as pure functions of arrays.

One primitive serves most estimators: ``group_center`` subtracts a group's baseline from each value and may
divide by the group's spread. *Unit* matters: statistics over turn rows weigh long episodes more than
statistics over episodes do.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EPSILON = 1e-4


def group_center(
    values: Sequence[float],
    groups: Sequence[Hashable],
    *,
    units: Sequence[Hashable] | None = None,
    baseline: Literal["mean", "loo"] = "mean",
    scale: Literal["none", "std0", "std1"] = "none",
    singleton: Literal["zero", "raw"] = "zero",
    epsilon: float = 0.0,
) -> Floats:
    """Center ``values`` (N,) within their groups.

    ``units``: rows with the same unit (an episode, say) count once in the group's statistics and must
    have equal values; default: every row counts. ``baseline``: the group's mean, or the mean of the *other*
    units (leave one out). ``scale``: divide by the group's standard deviation with ddof 0 or 1, plus
    ``epsilon``; a group without spread gives zeros. ``singleton``: what a group of one unit gets.
    """
    x = np.asarray(values, dtype=np.float64)
    out = np.zeros_like(x)
    rows: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        rows.setdefault(group, []).append(i)
    for members in rows.values():
        first = {(units[i] if units is not None else i): i for i in reversed(members)}
        statistics = x[list(first.values())]
        n = len(statistics)
        if n == 1:
            out[members] = x[members] if singleton == "raw" else 0.0
            continue
        centered = x[members] - statistics.mean()
        if baseline == "loo":
            centered = centered * n / (n - 1)
        if scale != "none":
            spread = statistics.std(ddof=0 if scale == "std0" else 1)
            centered = centered / (spread + epsilon) if spread > 0 else centered * 0
        out[members] = centered
    return out


def grpo(rewards: Sequence[float], groups: Sequence[Hashable]) -> Floats:
    """GRPO: ``(R - mean) / (std + 1e-4)`` over the group's episodes, std with ddof 1 as in TRL and verl.

    Called once per role with that role's own rewards it is role-wise GRPO (Dr.MAS).
    """
    return group_center(rewards, groups, scale="std1", epsilon=EPSILON)


def leave_one_out(rewards: Sequence[float], groups: Sequence[Hashable]) -> Floats:
    """RLOO: each episode against the mean of its group's others."""
    return group_center(rewards, groups, baseline="loo")


def rejection(rewards: Sequence[float], groups: Sequence[Hashable]) -> Floats:
    """Rejection-sampling fine-tuning: 1 for an episode with the full outcome reward, else 0.

    With it the policy-gradient loss is the log-likelihood of the successes: the supervised baseline.
    """
    return (np.asarray(rewards, dtype=np.float64) >= 1.0).astype(np.float64)


ESTIMATORS = {"grpo": grpo, "loo": leave_one_out, "rejection": rejection}


def informative(rewards: Sequence[float], groups: Sequence[Hashable]) -> set[Hashable]:
    """Groups whose episodes do not all have the same reward; the others teach nothing."""
    low: dict[Hashable, float] = {}
    high: dict[Hashable, float] = {}
    for reward, group in zip(rewards, groups, strict=True):
        low[group] = min(reward, low.get(group, reward))
        high[group] = max(reward, high.get(group, reward))
    return {group for group in low if high[group] - low[group] > 1e-9}
