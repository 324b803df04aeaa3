"""Coordination: the AdaPlan loop, the plan graph, matchers, adherence, replan policies, judges."""

from hiplan.coordination import matching, policy
from hiplan.coordination.adherence import Scores, Tracker, scores
from hiplan.coordination.graph import PlanGraph
from hiplan.coordination.judge import Candidate, Judge, PlanScore, Unjudged, judge_plan, rules_judge, score_plan
from hiplan.coordination.loop import Limits, adaplan
from hiplan.coordination.matching import Match, Matcher
from hiplan.coordination.policy import ReplanPolicy, never, on_failure
from hiplan.coordination.rubric import llm_judge

__all__ = [
    "Candidate",
    "Judge",
    "Limits",
    "Match",
    "Matcher",
    "PlanGraph",
    "PlanScore",
    "ReplanPolicy",
    "Scores",
    "Tracker",
    "Unjudged",
    "adaplan",
    "judge_plan",
    "llm_judge",
    "matching",
    "never",
    "on_failure",
    "policy",
    "rules_judge",
    "score_plan",
    "scores",
]
