"""Evaluation: task panels, the statistics shown with every figure, and diagnostics of plan following."""

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
from hiplan.evaluation.panels import Panel, TaskMix, fresh_panel, shipped_panel, train_mix
from hiplan.evaluation.statistics import paired, t_interval, wilson

__all__ = [
    "TEMPERATURES",
    "ByRole",
    "Cell",
    "EvalResult",
    "Panel",
    "TaskMix",
    "correlation",
    "cost",
    "cross_play",
    "deviations",
    "evaluate",
    "fresh_panel",
    "judged",
    "overlap",
    "paired",
    "paraphrased",
    "plan_reliance",
    "reliance",
    "shipped_panel",
    "swapped",
    "t_interval",
    "train_mix",
    "wilson",
]
