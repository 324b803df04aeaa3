"""AdaPlan (arXiv 2508.00344, section 3) as a generator that does no I/O.

It yields what it needs (``Generate``, ``Act``, ``Consult``) and typed events, and is sent the answers, so
apps, tests and training run the very same loop. It has no clock and no randomness: the same
answers give the same ``Episode``.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from hiplan.coordination.adherence import Tracker
from hiplan.coordination.matching import Matcher, best_known
from hiplan.coordination.policy import ReplanPolicy, idle_turns, on_failure
from hiplan.executors import ExecutorProtocol
from hiplan.plan import Plan, PlanRevision, ReplanReason
from hiplan.planners import PlannerProtocol
from hiplan.requests import Act, Acted, Ask, Consult, PlanReady, Steps
from hiplan.task import StepResult, Task
from hiplan.trace import Episode, PlanRecord, Role, StopReason, Turn, printable


@dataclass(frozen=True)
class Limits:
    """``turns``: actions per episode at most. ``idle``: actions in a row without effect that end the episode."""

    turns: int = 30
    idle: int = 5


def adaplan(
    task: Task,
    observation: str,
    planner: PlannerProtocol,
    executor: ExecutorProtocol,
    policy: ReplanPolicy | None = None,
    limits: Limits | None = None,
    matcher: Matcher = best_known,
) -> Generator[Ask, Any, Episode]:
    """Plan, act, and revise until the task ends or a limit is reached; returns the episode.

    ``matcher``: which steps an action serves.
    """
    policy, limits = policy or on_failure(), limits or Limits()
    episode = Episode(task, observation)
    first = yield from planner.plan(episode)
    tracker = Tracker((yield from _take_effect(episode, first, None)))
    episode.stop = None if limits.turns > 0 else StopReason.TURN_LIMIT
    while episode.stop is None:
        action = yield from executor.act(episode, tracker.ready())
        serves, result, status, state_key = yield from _act(action, episode.plan)
        matches = (yield from matcher(episode.plan, action, result.observation, serves)) if episode.plan else ()
        changed = not (episode.turns and state_key and state_key == episode.turns[-1].state_key)
        judged = tracker.observe(result, matches, status, changed)
        turn = Turn(
            index=len(episode.turns),
            action=action,
            observation=result.observation,
            reward=result.reward,
            refused=result.refused,
            state_key=state_key,
            **vars(judged),
        )
        episode.turns.append(turn)
        episode.stop = _stop(episode, result, limits)
        yield Acted(turn, episode)
        if episode.stop is None and (reason := policy(tracker, episode)):
            revision = yield from planner.revise(episode, reason, tuple(sorted(tracker.done)))
            plan = yield from _take_effect(episode, revision, reason)
            if not episode.plans[-1].kept:
                tracker.replan(plan)
    return episode


def _act(
    action: str, plan: Plan | None
) -> Generator[Ask, Any, tuple[list[bool] | None, StepResult, list[Any] | None, str]]:
    steps = [step.description for step in plan.steps] if plan else []
    serves = (yield Consult("serves", tuple((step, action) for step in steps))) if steps else None
    result = yield Act(action)
    status = (yield Consult("step_status", tuple((step,) for step in steps))) if steps else None
    state = yield Consult("state_key")
    return serves, result, status, printable(repr(state[0])) if state else ""


def _take_effect(episode: Episode, revision: PlanRevision, reason: ReplanReason | None) -> Steps[Plan | None]:
    """Record the planner's answer; whoever drives the loop may put another plan in its place."""
    turn, current = len(episode.turns), episode.plan
    plan, kept = revision.plan, False
    if plan is None and reason is not None:
        plan, kept = current, True
    elif plan is not None:
        plan = _numbered(plan, episode)
    record = PlanRecord(turn, plan, reason, kept, revision.reason)
    edited = yield PlanReady(record, episode)
    if isinstance(edited, Plan) and edited != record.plan:
        record = PlanRecord(turn, _numbered(edited, episode), reason)
    episode.plans.append(record)
    return record.plan


def _numbered(plan: Plan, episode: Episode) -> Plan:
    """The plan as the episode's next revision."""
    return plan.model_copy(update={"revision": sum(not r.kept and r.plan is not None for r in episode.plans)})


def _stop(episode: Episode, result: StepResult, limits: Limits) -> StopReason | None:
    if result.terminated:
        return StopReason.TERMINATED
    if result.truncated or len(episode.turns) >= limits.turns:
        return StopReason.TURN_LIMIT
    if idle_turns(episode) >= limits.idle:
        return StopReason.STUCK
    if any(_window_full(episode, role) for role in episode.conversations):
        return StopReason.WINDOW_FULL
    return None


def _window_full(episode: Episode, role: Role) -> bool:
    segments = episode.conversations[role].segments
    return bool(segments) and segments[-1].finish == "window"
