"""Several candidate plans for a task, one of which is chosen before the first action.

PilotRL shows the executor several plans and lets it choose (``by_executor``); a judge may choose (``by_judge``), or a
rehearsal of each in the environment (``by_rehearsal``). How to choose is a function that can be swapped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from hiplan.coordination.judge import score_plan
from hiplan.coordination.loop import Limits, adaplan
from hiplan.coordination.matching import Matcher, best_known
from hiplan.coordination.replan import ReplanPolicy
from hiplan.effects import Acted, AskCoverage, Effect, Effects, Generate, PlanReady, Reset, answered
from hiplan.errors import ConfigError
from hiplan.executors import ExecutorProtocol
from hiplan.formats import render_step
from hiplan.plan import PlanRevision, ReplanReason
from hiplan.planners import FixedPlanner, PlannerProtocol
from hiplan.prompts import FULL, Prompts
from hiplan.trace import Candidate, Conversation, Episode

T = TypeVar("T")
Choose = Callable[[Episode, Sequence[Candidate]], Effects[Sequence[float]]]
"""Scores candidates, each of which has a plan; the first with the highest score is taken.

What had to be written for it belongs in the candidates' ``conversations``.
"""


class Candidates:
    """Has ``planner`` write ``n`` first plans at ``temperature``, each in a conversation of its own, and takes one.

    Texts that did not parse are not weighed, and the same steps are weighed once. The episode goes on in the
    conversation of the plan that is taken, which ``planner`` revises. All are kept in ``Episode.candidates``.
    """

    def __init__(self, planner: PlannerProtocol, n: int, choose: Choose, temperature: float | None = 1.0) -> None:
        if n < 1:
            raise ConfigError(f"there must be at least 1 candidate plan, got {n}")
        self.planner, self.n, self.choose, self.temperature = planner, n, choose, temperature

    def plan(self, episode: Episode) -> Effects[PlanRevision]:
        written: list[tuple[PlanRevision, Conversation | None]] = []
        for _ in range(self.n):
            revision = yield from _asking(self.planner.plan(episode), _at(self.temperature))
            own = episode.conversations.pop("planner", None)
            written.append((revision, own))
            episode.candidates.append(Candidate(revision.plan, conversations=[own] if own else []))
        different = {c.plan.steps: c for c in reversed(episode.candidates) if c.plan is not None}
        weighed = list(reversed(different.values()))
        scores = (yield from self.choose(episode, weighed)) if len(weighed) > 1 else [0.0] * len(weighed)
        for candidate, score in zip(weighed, scores, strict=True):
            candidate.score = float(score)
        taken = max(weighed or episode.candidates, key=lambda c: c.score or 0.0)
        taken.chosen = True
        revision, own = written[episode.candidates.index(taken)]
        if own is not None:
            taken.conversations.remove(own)
            episode.conversations["planner"] = own
        return revision

    def revise(self, episode: Episode, reason: ReplanReason, done: tuple[int, ...]) -> Effects[PlanRevision]:
        return self.planner.revise(episode, reason, done)


def first(episode: Episode, candidates: Sequence[Candidate]) -> Effects[Sequence[float]]:
    """Take the first plan that could be read."""
    yield from ()
    return [0.0] * len(candidates)


def by_judge(episode: Episode, candidates: Sequence[Candidate]) -> Effects[Sequence[float]]:
    """The rule-based judge's mean score, 1 to 5; the first plan where the environment cannot judge."""
    scores = []
    for candidate in candidates:
        assert candidate.plan is not None
        known = yield from AskCoverage(tuple(step.description for step in candidate.plan.steps))
        scores.append(score_plan(candidate.plan, known.subgoals, known.achieved).mean if known else 0.0)
    return scores


def by_executor(prompts: Prompts = FULL) -> Choose:
    """Ask the executor which plan it would follow, as PilotRL's prompt does; the first if it names none."""

    def choose(episode: Episode, candidates: Sequence[Candidate]) -> Effects[Sequence[float]]:
        conversation = Conversation("executor")
        plans = [[f"Plan {n}:", *map(render_step, c.plan.steps)] for n, c in enumerate(candidates, 1) if c.plan]
        shown = "\n\n".join("\n".join(lines) for lines in plans)
        conversation.ask(prompts.executor_system, 0, author="system")
        conversation.ask(
            f"{episode.observation}\n\n{shown}\n\nWhich plan will you follow? Answer with its number alone.", 0
        )
        candidates[0].conversations.append(conversation)
        done = yield from answered(conversation, "action", 0)
        named = next((int(n) for n in re.findall(r"\d{1,6}", done.text) if 1 <= int(n) <= len(candidates)), None)
        return [float(n == named) for n in range(1, len(candidates) + 1)]

    return choose


def by_rehearsal(
    executor: ExecutorProtocol,
    planner: PlannerProtocol | None = None,
    replan: ReplanPolicy | None = None,
    limits: Limits | None = None,
    matcher: Matcher = best_known,
) -> Choose:
    """The environment's reward when each plan is tried from the start; needs one that can begin anew without harm.

    ``planner`` revises in rehearsals; without one, plans are rehearsed as they are. The environment's own steps count:
    see ``Candidate.turns``.
    """

    def choose(episode: Episode, candidates: Sequence[Candidate]) -> Effects[Sequence[float]]:
        scores = []
        for candidate in candidates:
            observation = yield from Reset(episode.task)
            assert candidate.plan is not None
            actor = _Begun(planner, candidate) if planner else FixedPlanner(candidate.plan)
            begun = Episode(episode.task, observation)
            trial = yield from _asking(adaplan(begun, actor, executor, replan, limits, matcher), _unseen)
            known = candidate.conversations[:1]
            candidate.conversations += [_beyond(known, c) for c in (*trial.past, *trial.conversations.values())]
            candidate.turns = len(trial.turns)
            scores.append(trial.reward)
        yield from Reset(episode.task)
        return scores

    return choose


class _Begun:
    """A planner whose first plan stands already, in a copy of the candidate's conversation."""

    def __init__(self, planner: PlannerProtocol, candidate: Candidate) -> None:
        self.revise, self._candidate = planner.revise, candidate

    def plan(self, episode: Episode) -> Effects[PlanRevision]:
        for known in self._candidate.conversations[:1]:
            episode.conversations["planner"] = Conversation(known.role, list(known.segments))
        return PlanRevision(plan=self._candidate.plan)
        yield


def _beyond(known: Sequence[Conversation], conversation: Conversation) -> Conversation:
    """The conversation without what stands already in the one that it was begun with."""
    for before in known:
        n = len(before.segments)
        if conversation.role == before.role and conversation.segments[:n] == before.segments:
            return Conversation(conversation.role, conversation.segments[n:])
    return conversation


def _at(temperature: float | None) -> Callable[[Effect[Any]], Effect[Any] | None]:
    """Everything that is generated, at another temperature."""
    return lambda ask: replace(ask, temperature=temperature) if isinstance(ask, Generate) else ask


def _unseen(ask: Effect[Any]) -> Effect[Any] | None:
    """No events: nobody follows a rehearsal."""
    return None if isinstance(ask, PlanReady | Acted) else ask


def _asking(steps: Effects[T], change: Callable[[Effect[Any]], Effect[Any] | None]) -> Effects[T]:
    """The same with every ask changed; what becomes ``None`` is answered with ``None``."""
    answer: Any = None
    while True:
        try:
            ask = change(steps.send(answer))
        except StopIteration as stop:
            value: T = stop.value
            return value
        answer = None if ask is None else (yield ask)
