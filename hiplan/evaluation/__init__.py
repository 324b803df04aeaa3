"""Evaluation: run an agent on tasks, confidence intervals, and diagnostics of plan use."""

from hiplan.evaluation.diagnostics import (
    ByRole,
    correlation,
    cost,
    cross_play,
    deviations,
    judged,
    overlap,
    paraphrased,
    plan_reliance,
    reliance,
    swapped,
)
from hiplan.evaluation.evaluate import TEMPERATURES, Cell, EvalResult, evaluate
from hiplan.evaluation.statistics import paired, t_interval, wilson

__all__ = [
    "TEMPERATURES",
    "ByRole",
    "Cell",
    "EvalResult",
    "correlation",
    "cost",
    "cross_play",
    "deviations",
    "evaluate",
    "judged",
    "overlap",
    "paired",
    "paraphrased",
    "plan_reliance",
    "reliance",
    "swapped",
    "t_interval",
    "wilson",
]
