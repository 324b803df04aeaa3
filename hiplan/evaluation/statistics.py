"""Confidence intervals for success rates, means and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval (low, high) for the proportion ``successes / n``; (0, 1) for ``n = 0``."""
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = successes / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * ((p * (1 - p) + z * z / (4 * n)) / n) ** 0.5 / (1 + z * z / n)
    return max(0.0, center - half), min(1.0, center + half)


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % t-interval (mean, low, high); the bounds are NaN for a single value."""
    mean = fmean(values)
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def paired(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Mean of ``one - other`` paired by task, with its 95 % t-interval (mean, low, high).

    Both are (seeds, tasks). The interval is over seeds, or over tasks if there is only one seed.
    """
    differences = [[x - y for x, y in zip(a, b, strict=True)] for a, b in zip(one, other, strict=True)]
    return t_interval([fmean(d) for d in differences] if len(differences) > 1 else differences[0])
