"""Diagnostics that show whether an agent uses its plan and whether the plan helps; success alone does not.

Success under swapped plans, cross-play of roles from different runs, overlap of actions with the plan's text,
correlation of the judge's score with the plan's benefit, and the positions where episodes deviate from the plan.
docs/diagnostics.md explains how to read them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean

from hiplan.coordination import Submission, Tracker, Unjudged, rules_judge
from hiplan.coordination.matching import SYNONYM_GROUPS
from hiplan.env import EnvFactory
from hiplan.evaluation.evaluate import Cell, EvalResult, evaluate
from hiplan.model import Completion, Model, Request
from hiplan.plan import Plan
from hiplan.planners import GivenPlans, NoPlanner, OraclePlanner, PlannerProtocol
from hiplan.sampler import Sampler
from hiplan.task import Task
from hiplan.trace import Episode, Role, Verdict

CONDITIONS: dict[str, str] = {
    "own": "its own plan, revised as usual",
    "own, fixed": "its own first plan, never revised",
    "paraphrased": "its own first plan in other words, never revised",
    "swapped": "its own first plan for another task, of like length, never revised",
    "none": "no plan",
    "oracle": "the environment's plan, revised by what was seen",
    "oracle, fixed": "the environment's first plan, never revised",
}
"""The plans that ``reliance`` compares, with their labels in tables."""


def reliance(
    sampler: Sampler, tasks: Sequence[Task], *, seed: int = 0, reword: Callable[[Plan], Plan] | None = None
) -> dict[str, EvalResult]:
    """Run the same executor on the same tasks under each of ``CONDITIONS``; the episodes are in the order of ``tasks``.

    Compare conditions task by task (``statistics.paired``). Compare the fixed plans with each other, because a planner
    that revises would repair a swapped plan. A task without the plan in question is played without a plan: its
    planner's text did not parse, or all other tasks have the same steps. A condition without any plan is left out. All
    conditions use the same seed for the same task; their actions still differ by sampling unless decoding is greedy.
    ``reword`` defaults to ``paraphrased``.
    """

    def play(planners: Mapping[str, PlannerProtocol]) -> dict[str, EvalResult]:
        cells = [Cell(tasks, planner, sampler.executor, sampler.decoding) for planner in planners.values()]
        return dict(zip(planners, evaluate(sampler, cells, seed), strict=True))

    live = play({"own": sampler.planner, "none": NoPlanner(), "oracle": OraclePlanner()})
    own, oracle = first_plans(live["own"].episodes), first_plans(live["oracle"].episodes)
    given = {
        "own, fixed": own,
        "paraphrased": {i: (reword or paraphrased)(plan) for i, plan in own.items()},
        "swapped": swapped(own, {task.id: task.env for task in tasks}),
        "oracle, fixed": oracle,
    }
    found = live | play({name: GivenPlans(plans) for name, plans in given.items()})
    return {n: found[n] for n in CONDITIONS if n == "none" or first_plans(found[n].episodes)}


def first_plans(episodes: Sequence[Episode]) -> dict[str, Plan]:
    """The first plan of each episode that had one, by task id."""
    return {e.task.id: e.plans[0].plan for e in episodes if e.plans and e.plans[0].plan}


def swapped(plans: Mapping[str, Plan], envs: Mapping[str, str]) -> dict[str, Plan]:
    """For each task id, the plan of another task of the same environment, with other steps and the nearest in length.

    ``envs``: the environment of each task. Ties go to the next task in order. A task without such a plan is left out.
    """
    ids = list(plans)
    found = {}
    for place, mine in enumerate(ids):
        others = [i for i in ids[place + 1 :] + ids[:place] if envs[i] == envs[mine]]
        others = [i for i in others if _wording(plans[i]) != _wording(plans[mine])]
        if others:
            length = len(plans[mine].steps)
            found[mine] = plans[min(others, key=lambda i: abs(len(plans[i].steps) - length))]
    return found


def paraphrased(plan: Plan) -> Plan:
    """The plan with the first word of each step replaced by its next synonym, if there is one."""
    following = {a: b for group in SYNONYM_GROUPS for a, b in pairwise((*group, group[0]))}

    def reworded(text: str) -> str:
        first, space, rest = text.partition(" ")
        other = following.get(first.lower(), first)
        return (other.capitalize() if first[:1].isupper() else other) + space + rest

    steps = tuple(s.model_copy(update={"description": reworded(s.description)}) for s in plan.steps)
    return plan.model_copy(update={"steps": steps})


def _wording(plan: Plan) -> tuple[str, ...]:
    return tuple(step.description for step in plan.steps)


def plan_reliance(own: float, swapped: float) -> float:
    """``(S_own - S_swapped) / S_own``: the share of the success that depends on the right plan; NaN for ``own = 0``."""
    return (own - swapped) / own if own > 0 else math.nan


class ByRole(Model):
    """A model that sends the planner's requests to one model and the executor's to another."""

    def __init__(self, planner: Model, executor: Model) -> None:
        self._models: dict[Role, Model] = {"planner": planner, "executor": executor}
        self.prompts = planner.prompts.with_executor_of(executor.prompts)

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        return self._models[requests[0].role].complete(requests) if requests else []

    def release(self) -> None:
        """Free the cached state of both models."""
        for model in self._models.values():
            model.release()


def cross_play(samplers: Sequence[Sampler], tasks: Sequence[Task], *, seed: int = 0) -> list[list[EvalResult]]:
    """Evaluate every planner with every executor: ``result[i][j]`` has the planner of ``i`` and the executor of ``j``.

    All other settings are those of sampler ``i``. If only the diagonal is high, the roles of each run have developed a
    private code that other runs do not understand.
    """
    rows = []
    for first in samplers:
        row = []
        for second in samplers:
            both = replace(first, model=ByRole(first.model, second.model))
            row += evaluate(both, [Cell(tasks, both.planner, both.executor, both.decoding)], seed)
        rows.append(row)
    return rows


def overlap(episode: Episode) -> float | None:
    """Mean share of an action's words that occur in the best-matching step of the plan in force.

    1 if every action is spelled out in some step; ``None`` without an action under a plan.
    """
    shares = []
    for span in episode.plan_spans():
        plan = span.record.plan
        steps = [set(step.description.lower().split()) for step in plan.steps] if plan else []
        for turn in span.turns if steps else ():
            if words := turn.action.lower().split():
                shares.append(max(sum(word in step for word in words) for step in steps) / len(words))
    return fmean(shares) if shares else None


def judged(episodes: Sequence[Episode], make_env: EnvFactory) -> list[float | None]:
    """The rule-based judge's mean score (1 to 5) of each episode's first plan; ``None`` if it cannot score it."""
    plans = [Submission(e.task, e.observation, e.plans[0].plan if e.plans else None) for e in episodes]
    return [None if isinstance(s, Unjudged) else s.mean for s in rules_judge(make_env)(plans)]


def correlation(scores: Sequence[float], uplift: Sequence[float]) -> float:
    """Spearman's rank correlation over tasks; NaN if either sequence is constant."""
    from scipy.stats import spearmanr

    if len(set(scores)) < 2 or len(set(uplift)) < 2:
        return math.nan
    return float(spearmanr(scores, uplift).statistic)


@dataclass(frozen=True)
class Cost:
    """The cost of an episode, including rehearsals and candidate plans that were not chosen.

    ``calls``: model calls. ``read`` and ``written``: tokens, each prompt token counted once as with a KV cache; 0 for
    models that exchange text. ``turns``: actions.
    """

    calls: int
    read: int
    written: int
    turns: int


def cost(episode: Episode) -> Cost:
    """The cost of the episode."""
    conversations = [*episode.conversations.values(), *episode.past]
    conversations += [c for candidate in episode.candidates for c in candidate.conversations]
    own = [s for c in conversations for s in c.segments if s.author == "assistant"]
    read = sum(len(s.ids) for c in conversations for s in c.segments if s.author != "assistant")
    turns = len(episode.turns) + sum(candidate.turns for candidate in episode.candidates)
    return Cost(len(own), read, sum(len(s.ids) for s in own), turns)


USED_UP = 0
"""The position of an action after every step is done."""


def deviations(episodes: Sequence[Episode]) -> Counter[tuple[int, Verdict]]:
    """Counts of actions by verdict and by the position in the plan (from 1) of the first ready step.

    The position is ``USED_UP`` if every step was done.
    """
    found: Counter[tuple[int, Verdict]] = Counter()
    for episode in episodes:
        tracker = Tracker(None)
        for span in episode.plan_spans():
            tracker.revise(span.record)
            place = {step.id: n for n, step in enumerate(tracker.plan.steps, 1)} if tracker.plan else {}
            for turn in span.turns:
                if turn.verdict is not None:
                    found[place[tracker.ready()[0]] if tracker.ready() else USED_UP, turn.verdict] += 1
                tracker.restore(turn)
    return found
