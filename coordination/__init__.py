"""Coordination: the AdaPlan loop, the plan graph, matchers, adherence, replan policies, judges."""

from hiplan.coordination import matching, replan
from hiplan.coordination.adherence import Scores, Tracker, scores
from hiplan.coordination.candidates import Candidates, by_executor, by_judge, by_rehearsal
from hiplan.coordination.graph import PlanGraph
from hiplan.coordination.judge import Judge, PlanScore, Submission, Unjudged, judge_plan, rules_judge, score_plan
from hiplan.coordination.loop import Limits, adaplan
from hiplan.coordination.matching import Match, Matcher
from hiplan.coordination.replan import ReplanPolicy, never, on_failure
from hiplan.coordination.rubric import llm_judge

__all__ = [
    "Candidates",
    "Judge",
    "Limits",
    "Match",
    "Matcher",
    "PlanGraph",
    "PlanScore",
    "ReplanPolicy",
    "Scores",
    "Submission",
    "Tracker",
    "Unjudged",
    "adaplan",
    "by_executor",
    "by_judge",
    "by_rehearsal",
    "judge_plan",
    "llm_judge",
    "matching",
    "never",
    "on_failure",
    "replan",
    "rules_judge",
    "score_plan",
    "scores",
]
