"""Sample several first plans for a task and choose one of them before the first action.

``by_executor`` lets the executor choose, as in PilotRL (arXiv 2508.00344). ``by_judge`` uses the scores of the
rule-based judge, and ``by_rehearsal`` the reward of a trial run of each plan. Any function of type ``Choose`` works.
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
from hiplan.effects import Acted, AskCoverage, Effect, Effects, Generate, PlanReady, Reset, generate
from hiplan.errors import ConfigError
from hiplan.executors import ExecutorProtocol
from hiplan.formats import render_step
from hiplan.plan import PlanRevision, ReplanReason
from hiplan.planners import FixedPlanner, PlannerProtocol
from hiplan.prompts import FULL, Prompts
from hiplan.trace import Candidate, Conversation, Episode

T = TypeVar("T")
Choose = Callable[[Episode, Sequence[Candidate]], Effects[Sequence[float]]]
"""Scores candidates, all of which have a plan; the first with the highest score is chosen.

The function appends the conversations that it holds to the candidates' ``conversations``.
"""


class Candidates:
    """A planner that samples ``n`` first plans from another planner and chooses one with ``choose``.

    Each plan is written at ``temperature`` in its own conversation. Texts that do not parse are not scored, and equal
    steps are scored once. The episode continues in the conversation of the chosen plan, where ``planner`` revises it.
    All candidates are recorded in ``Episode.candidates``. Raises ``ConfigError`` if ``n`` is below 1.
    """

    def __init__(self, planner: PlannerProtocol, n: int, choose: Choose, temperature: float | None = 1.0) -> None:
        if n < 1:
            raise ConfigError(f"n must be at least 1 candidate plan, got {n!r}")
        self.planner, self.n, self.choose, self.temperature = planner, n, choose, temperature

    def plan(self, episode: Episode) -> Effects[PlanRevision]:
        written: list[tuple[PlanRevision, Conversation | None]] = []
        for _ in range(self.n):
            revision = yield from _map_effects(self.planner.plan(episode), _at_temperature(self.temperature))
            own = episode.conversations.pop("planner", None)
            written.append((revision, own))
            episode.candidates.append(Candidate(revision.plan, conversations=[own] if own else []))
        different = {c.plan.steps: c for c in reversed(episode.candidates) if c.plan is not None}
        scored = list(reversed(different.values()))
        scores = (yield from self.choose(episode, scored)) if len(scored) > 1 else [0.0] * len(scored)
        for candidate, score in zip(scored, scores, strict=True):
            candidate.score = float(score)
        chosen = max(scored or episode.candidates, key=lambda c: c.score or 0.0)
        chosen.chosen = True
        revision, own = written[episode.candidates.index(chosen)]
        if own is not None:
            chosen.conversations.remove(own)
            episode.conversations["planner"] = own
        return revision

    def revise(self, episode: Episode, reason: ReplanReason, done: tuple[int, ...]) -> Effects[PlanRevision]:
        return self.planner.revise(episode, reason, done)


def first(episode: Episode, candidates: Sequence[Candidate]) -> Effects[Sequence[float]]:
    """Choose the first plan that parsed."""
    yield from ()
    return [0.0] * len(candidates)


def by_judge(episode: Episode, candidates: Sequence[Candidate]) -> Effects[Sequence[float]]:
    """Score with the rule-based judge, mean from 1 to 5; if the environment is not ``PlanAware`` all plans score 0."""
    scores = []
    for candidate in candidates:
        assert candidate.plan is not None
        known = yield from AskCoverage(tuple(step.description for step in candidate.plan.steps))
        scores.append(score_plan(candidate.plan, known.subgoals, known.achieved).mean if known else 0.0)
    return scores


def by_executor(prompts: Prompts = FULL) -> Choose:
    """Ask the executor which plan to follow, as in PilotRL; chooses the first plan if the answer names none."""

    def choose(episode: Episode, candidates: Sequence[Candidate]) -> Effects[Sequence[float]]:
        conversation = Conversation("executor")
        plans = [[f"Plan {n}:", *map(render_step, c.plan.steps)] for n, c in enumerate(candidates, 1) if c.plan]
        shown = "\n\n".join("\n".join(lines) for lines in plans)
        conversation.ask(prompts.executor_system, 0, author="system")
        conversation.ask(
            f"{episode.observation}\n\n{shown}\n\nWhich plan will you follow? Answer with its number alone.", 0
        )
        candidates[0].conversations.append(conversation)
        done = yield from generate(conversation, "action", 0)
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
    """Score each plan with the reward of a rehearsal, an episode from the start of the task in the same environment.

    Use it only with environments whose actions ``reset`` undoes. ``planner`` revises plans during a rehearsal; without
    it, plans are never revised. ``Candidate.turns`` counts the environment steps of a rehearsal.
    """

    def choose(episode: Episode, candidates: Sequence[Candidate]) -> Effects[Sequence[float]]:
        scores = []
        for candidate in candidates:
            observation = yield from Reset(episode.task)
            assert candidate.plan is not None
            actor = _PlannerWithFirstPlan(planner, candidate) if planner else FixedPlanner(candidate.plan)
            begun = Episode(episode.task, observation)
            trial = yield from _map_effects(adaplan(begun, actor, executor, replan, limits, matcher), _without_events)
            known = candidate.conversations[:1]
            candidate.conversations += [_new_part(known, c) for c in (*trial.past, *trial.conversations.values())]
            candidate.turns = len(trial.turns)
            scores.append(trial.reward)
        yield from Reset(episode.task)
        return scores

    return choose


class _PlannerWithFirstPlan:
    """A planner that starts with a candidate's plan, in a copy of its conversation, and then revises as ``planner``."""

    def __init__(self, planner: PlannerProtocol, candidate: Candidate) -> None:
        self.revise, self._candidate = planner.revise, candidate

    def plan(self, episode: Episode) -> Effects[PlanRevision]:
        for known in self._candidate.conversations[:1]:
            episode.conversations["planner"] = Conversation(known.role, list(known.segments))
        return PlanRevision(plan=self._candidate.plan)
        yield


def _new_part(known: Sequence[Conversation], conversation: Conversation) -> Conversation:
    """The segments of a conversation after those of the known conversation that it starts with."""
    for before in known:
        n = len(before.segments)
        if conversation.role == before.role and conversation.segments[:n] == before.segments:
            return Conversation(conversation.role, conversation.segments[n:])
    return conversation


def _at_temperature(temperature: float | None) -> Callable[[Effect[Any]], Effect[Any] | None]:
    """Changes the temperature of ``Generate`` effects."""
    return lambda ask: replace(ask, temperature=temperature) if isinstance(ask, Generate) else ask


def _without_events(ask: Effect[Any]) -> Effect[Any] | None:
    """Drops events: rehearsals are not shown to the caller."""
    return None if isinstance(ask, PlanReady | Acted) else ask


def _map_effects(steps: Effects[T], change: Callable[[Effect[Any]], Effect[Any] | None]) -> Effects[T]:
    """The same generator with every effect changed; effects changed to ``None`` are dropped and answered ``None``."""
    answer: Any = None
    while True:
        try:
            ask = change(steps.send(answer))
        except StopIteration as stop:
            value: T = stop.value
            return value
        answer = None if ask is None else (yield ask)
