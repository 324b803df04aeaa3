"""Coordination of both roles: the AdaPlan loop, the plan graph, matchers, adherence, replan policies, and judges."""

from hiplan.coordination import matching, replan
from hiplan.coordination.adherence import Scores, Tracker, scores
from hiplan.coordination.candidates import Candidates, by_executor, by_judge, by_rehearsal
from hiplan.coordination.graph import PlanGraph
from hiplan.coordination.judge import (
    Judge,
    Submission,
    Unjudged,
    judge_plan,
    rules_judge,
    score_first_plans,
    score_plan,
)
from hiplan.coordination.loop import Limits, adaplan
from hiplan.coordination.matching import Match, Matcher
from hiplan.coordination.replan import ReplanPolicy, never, on_failure
from hiplan.coordination.replay import Replayed, replay
from hiplan.coordination.rubric import llm_judge
from hiplan.coordination.states import step_states
from hiplan.plan import PlanScore

__all__ = [
    "Candidates",
    "Judge",
    "Limits",
    "Match",
    "Matcher",
    "PlanGraph",
    "PlanScore",
    "ReplanPolicy",
    "Replayed",
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
    "replay",
    "rules_judge",
    "score_first_plans",
    "score_plan",
    "scores",
    "step_states",
]
