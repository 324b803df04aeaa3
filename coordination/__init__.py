"""Coordination: the AdaPlan loop, the plan graph, adherence, replan policies, judges."""

from hiplan.coordination.adherence import Tracker
from hiplan.coordination.graph import PlanGraph
from hiplan.coordination.judge import PlanScore, judge_plan
from hiplan.coordination.loop import Limits, adaplan
from hiplan.coordination.policy import ReplanPolicy, never, on_failure

__all__ = [
    "Limits",
    "PlanGraph",
    "PlanScore",
    "ReplanPolicy",
    "Tracker",
    "adaplan",
    "judge_plan",
    "never",
    "on_failure",
]
