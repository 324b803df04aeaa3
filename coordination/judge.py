"""The rule-based judge of plans: PilotRL's three dimensions without a frontier model.

Each dimension is scored 1 to 5. *Correctness*: the mean of two shares of the task's subgoals: those the plan
covers, and those it covers after all that must come before them. *Followability*: the share of steps that mean
something in this environment and come after all they depend on. *Standardisation*: parsed at all, and of
reasonable size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hiplan.env import PlanAware
from hiplan.plan import Plan


@dataclass(frozen=True)
class PlanScore:
    """Three scores, each from 1 to 5."""

    correctness: float
    followability: float
    standardisation: float

    @property
    def mean(self) -> float:
        return (self.correctness + self.followability + self.standardisation) / 3

    @property
    def passes(self) -> bool:
        """PilotRL's filter for given plans: mean at least 4.5, correctness at least 4, the others 5."""
        return self.mean >= 4.5 and self.correctness >= 4 and self.followability == 5 == self.standardisation


WORST = PlanScore(1.0, 1.0, 1.0)


def judge_plan(plan: Plan | None, env: PlanAware) -> PlanScore:
    """Score a plan against a freshly reset environment; a missing plan scores 1, 1, 1."""
    achieved = [env.subgoal_of(step.description) for step in plan.steps] if plan else []
    return score_plan(plan, env.subgoals(), achieved)


def score_plan(plan: Plan | None, subgoals: Mapping[str, tuple[str, ...]], achieved: Sequence[str | None]) -> PlanScore:
    """Score a plan; a missing one scores 1, 1, 1.

    ``subgoals``: what the task needs, each with what must come before it. ``achieved[i]``: the subgoal that step ``i``
    achieves, ``None`` where it means nothing in the environment (see ``PlanAware``).
    """
    if plan is None:
        return WORST
    covered = {goal for goal in achieved if goal in subgoals}
    met: set[str] = set()  # those that come after all they wait for
    for goal in achieved:
        if goal in covered and goal is not None and met.issuperset(subgoals[goal]):
            met.add(goal)
    share = (len(covered) + len(met)) / (2 * len(subgoals)) if subgoals else 1.0
    seen: set[int] = set()
    sound = 0
    for step, goal in zip(plan.steps, achieved, strict=True):
        sound += goal is not None and all(before in seen for before in step.after)
        seen.add(step.id)
    most = 2 * len(subgoals) + 2
    size = 1.0 if len(plan.steps) <= most else most / len(plan.steps)
    return PlanScore(1 + 4 * share, 1 + 4 * sound / len(plan.steps), 1 + 4 * size)
