"""Judges score plans on PilotRL's three dimensions (arXiv 2508.00344), each from 1 to 5.

``rules_judge`` scores by rules and needs no model; ``llm_judge`` (``rubric.py``) asks a model. Both are a ``Judge``.

The rules map a share in [0, 1] to each score. *Correctness*: the mean of two shares of the task's subgoals, those that
the plan covers and those that it covers after all their prerequisites. *Followability*: the share of steps that have a
meaning in the environment and come after all steps they depend on. *Standardisation*: 1, or less for a plan with more
than twice as many steps as subgoals, plus 2. A text that does not parse scores 1 on all three.
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
    """A plan to be judged, for ``task`` with the first observation ``observation``.

    ``plan``: ``None`` if the planner's text did not parse. ``reference``: a trajectory that solves the task, as text;
    empty if there is none.
    """

    task: Task
    observation: str
    plan: Plan | None
    reference: str = ""


@dataclass(frozen=True)
class Unjudged:
    """Returned in place of a score if a judge could not score a plan; ``why`` is the reason."""

    why: str


Judge = Callable[[Sequence[Submission]], list[PlanScore | Unjudged]]
"""Scores a batch of submissions, in order."""


def rules_judge(make_env: EnvFactory) -> Judge:
    """A judge that applies ``judge_plan`` in an environment of each task; steps must use the environment's vocabulary.

    A plan is ``Unjudged`` if the environment fails or is not ``PlanAware``.
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
        except Exception as error:  # environments may raise anything
            return Unjudged(f"the environment failed: {type(error).__name__}: {error}")
        return Unjudged(f"the environment {candidate.task.env!r} is not PlanAware; use an LLM judge")

    return judge


def score_first_plans(episodes: Sequence[Episode], judge: Judge) -> None:
    """Record the judge's score of each episode's first plan; equal plans for the same task are judged once."""
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
    """Score a plan by the rules in a freshly reset environment; ``None`` scores 1, 1, 1."""
    achieved = [env.subgoal_of(step.description) for step in plan.steps] if plan else []
    return score_plan(plan, env.subgoals(), achieved)


def score_plan(plan: Plan | None, subgoals: Mapping[str, tuple[str, ...]], achieved: Sequence[str | None]) -> PlanScore:
    """Score a plan by the rules of this module; ``None`` scores 1, 1, 1.

    ``subgoals``: the task's subgoals, each with its prerequisites. ``achieved[i]``: the subgoal that step ``i``
    achieves, ``None`` if the step has no meaning in the environment (see ``PlanAware``).
    """
    if plan is None:
        return WORST
    covered = {goal for goal in achieved if goal in subgoals}
    met: set[str] = set()  # subgoals that come after all their prerequisites
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
