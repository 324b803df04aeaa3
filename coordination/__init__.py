"""Coordination: the AdaPlan loop, the plan graph, matchers, adherence, replan policies, judges."""

from hiplan.coordination import matching, policy
from hiplan.coordination.adherence import Scores, Tracker, scores
from hiplan.coordination.graph import PlanGraph
from hiplan.coordination.judge import PlanScore, judge_plan, score_plan
from hiplan.coordination.loop import Limits, adaplan
from hiplan.coordination.matching import Match, Matcher
from hiplan.coordination.policy import ReplanPolicy, never, on_failure

__all__ = [
    "Limits",
    "Match",
    "Matcher",
    "PlanGraph",
    "PlanScore",
    "ReplanPolicy",
    "Scores",
    "Tracker",
    "adaplan",
    "judge_plan",
    "matching",
    "never",
    "on_failure",
    "policy",
    "score_plan",
    "scores",
]
