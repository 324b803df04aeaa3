"""Judges of plans: PilotRL's three dimensions (arXiv 2508.00344), and rules that score them without a frontier model.

A ``Judge`` scores a batch of candidates. ``rules_judge`` here and ``llm_judge`` in ``rubric.py`` are interchangeable.

By the rules each dimension is scored 1 to 5. *Correctness*: the mean of two shares of the task's subgoals: those the
plan covers, and those it covers after all that must come before them. *Followability*: the share of steps that mean
something in this environment and come after all they depend on. *Standardisation*: parsed at all, and of reasonable
size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from hiplan.env import EnvFactory, PlanAware
from hiplan.plan import Plan, PlanScore
from hiplan.task import Task
from hiplan.trace import Episode

WORST = PlanScore(1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Submission:
    """A plan to be judged: for ``task``, whose first observation is ``observation``.

    ``plan``: None where what the planner wrote could not be read. ``reference``: a trajectory that solves the task, as
    text; empty without one.
    """

    task: Task
    observation: str
    plan: Plan | None
    reference: str = ""


@dataclass(frozen=True)
class Unjudged:
    """A judge could not score a plan, and why. It stands where a score would: nobody makes one up."""

    why: str


Judge = Callable[[Sequence[Submission]], list[PlanScore | Unjudged]]
"""Scores a batch of candidates, in order."""


def rules_judge(make_env: EnvFactory) -> Judge:
    """``judge_plan`` on an environment of each candidate's task; it understands steps in the environment's own words.

    Where the environment fails or is not ``PlanAware`` the plan is ``Unjudged``.
    """

    def judge(candidates: Sequence[Submission]) -> list[PlanScore | Unjudged]:
        return [by_rules(candidate) for candidate in candidates]

    def by_rules(candidate: Submission) -> PlanScore | Unjudged:
        try:
            env = make_env(candidate.task)
            try:
                env.reset(candidate.task)
                if isinstance(env, PlanAware):
                    return judge_plan(candidate.plan, env)
            finally:
                env.close()
        except Exception as error:  # whatever an engine raises
            return Unjudged(f"the environment failed: {type(error).__name__}: {error}")
        return Unjudged(f"the environment {candidate.task.env!r} does not understand plans; ask an LLM judge")

    return judge


def score_first_plans(episodes: Sequence[Episode], judge: Judge) -> None:
    """Record the judge's score of each episode's first plan; the same plan for the same task is judged once."""
    first: dict[object, Submission] = {}
    keys = [(e.task.id, e.plans[0].plan and e.plans[0].plan.steps) if e.plans else None for e in episodes]
    for key, episode in zip(keys, episodes, strict=True):
        if key is not None:
            first.setdefault(key, Submission(episode.task, episode.observation, episode.plans[0].plan))
    scores = dict(zip(first, judge(list(first.values())), strict=True))
    for key, episode in zip(keys, episodes, strict=True):
        if key is not None and isinstance(score := scores[key], PlanScore):
            episode.plans[0] = replace(episode.plans[0], score=score)


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
