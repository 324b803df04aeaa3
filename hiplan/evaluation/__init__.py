"""Evaluation: task panels and the statistics shown with every figure."""

from hiplan.evaluation.evaluate import TEMPERATURES, Cell, EvalResult, evaluate, wilson
from hiplan.evaluation.panels import Panel, TaskMix, fresh_panel, shipped_panel, train_mix

__all__ = [
    "TEMPERATURES",
    "Cell",
    "EvalResult",
    "Panel",
    "TaskMix",
    "evaluate",
    "fresh_panel",
    "shipped_panel",
    "train_mix",
    "wilson",
]
