"""``group_center`` subtracts a group's baseline from each value and may divide by the group's standard deviation.

Most estimators use it. The unit of the statistics matters: over turns, long episodes weigh more than over episodes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Group = TypeVar("Group", bound=Hashable)


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
    """Center ``values`` (N,) within ``groups`` (N,); returns (N,).

    ``units`` (N,): rows with the same unit, such as an episode, count once in the statistics and must have equal
    values; default: every row is its own unit. ``baseline``: the group's mean, or ``loo``, the mean of the other units
    (leave one out). ``scale``: divide by the group's standard deviation with ddof 0 or 1, plus ``epsilon``; a group
    with standard deviation 0 gets zeros. ``singleton``: a group of one unit gets zeros or its raw values.
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


def informative(rewards: Sequence[float], groups: Sequence[Group]) -> set[Group]:
    """The groups whose rewards differ; centered advantages in all other groups are 0."""
    low: dict[Group, float] = {}
    high: dict[Group, float] = {}
    for reward, group in zip(rewards, groups, strict=True):
        low[group] = min(reward, low.get(group, reward))
        high[group] = max(reward, high.get(group, reward))
    return {group for group in low if high[group] - low[group] > 1e-9}
