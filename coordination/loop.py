"""AdaPlan (PilotRL, arXiv 2508.00344, section 3) as a generator that does no I/O.

The generator yields typed effects (``hiplan.effects``) and receives their answers, so apps, tests and training run the
same loop. It uses no clock and no randomness: the same answers give the same ``Episode``.
"""

from __future__ import annotations

from dataclasses import dataclass

from hiplan.coordination.adherence import Tracker
from hiplan.coordination.matching import Matcher, best_known
from hiplan.coordination.replan import ReplanPolicy, idle_turns, on_failure
from hiplan.effects import Act, Acted, Effects, PlanReady
from hiplan.executors import ExecutorProtocol
from hiplan.plan import Plan, PlanRevision, ReplanReason
from hiplan.planners import PlannerProtocol
from hiplan.task import StepResult
from hiplan.trace import Episode, PlanRecord, Role, StopReason, Turn


@dataclass(frozen=True)
class Limits:
    """``turns``: the most actions per episode. ``idle``: consecutive actions without effect that end the episode."""

    turns: int = 30
    idle: int = 5


def adaplan(
    episode: Episode,
    planner: PlannerProtocol,
    executor: ExecutorProtocol,
    replan: ReplanPolicy | None = None,
    limits: Limits | None = None,
    matcher: Matcher = best_known,
    tracker: Tracker | None = None,
) -> Effects[Episode]:
    """Plan, act, and revise until the task ends or a limit is reached; appends to ``episode`` and returns it.

    ``episode`` has the task and the first observation. A replayed episode (``replay``) also has earlier turns, and
    ``tracker`` is their state. ``replan`` decides when to ask for a revision. ``matcher`` decides which steps an action
    serves.
    """
    replan, limits, tracker = replan or on_failure(), limits or Limits(), tracker or Tracker(None)
    while episode.stop is None:
        if not episode.plans:
            first = yield from planner.plan(episode)
            tracker.replan((yield from _take_effect(episode, first, None)))
        elif episode.plans[-1].turn < len(episode.turns) and (reason := replan(tracker, episode)):
            revision = yield from planner.revise(episode, reason, tuple(sorted(tracker.done)))
            plan = yield from _take_effect(episode, revision, reason)
            if not episode.plans[-1].kept:
                tracker.replan(plan)
        if limits.turns <= len(episode.turns):
            episode.stop = StopReason.TURN_LIMIT
            break
        action = yield from executor.act(episode, tracker.ready())
        turn, result = yield from _act(action, episode, tracker, matcher)
        episode.turns.append(turn)
        episode.stop = _stop(episode, result, limits)
        yield from Acted(turn, episode)
    return episode


def _act(action: str, episode: Episode, tracker: Tracker, matcher: Matcher) -> Effects[tuple[Turn, StepResult]]:
    """Execute an action and judge it against the plan."""
    plan = episode.plan
    outcome = yield from Act(action, tuple(step.description for step in plan.steps) if plan else ())
    result, state_key = outcome.result, outcome.state_key
    matches = (yield from matcher(plan, action, result.observation, outcome.serves)) if plan else ()
    changed = not (episode.turns and state_key and state_key == episode.turns[-1].state_key)
    judged = tracker.observe(result, matches, outcome.status, changed)
    turn = Turn(
        index=len(episode.turns),
        action=action,
        observation=result.observation,
        reward=result.reward,
        refused=result.refused,
        success=result.success,
        state_key=state_key,
        **vars(judged),
    )
    return turn, result


def _take_effect(episode: Episode, revision: PlanRevision, reason: ReplanReason | None) -> Effects[Plan | None]:
    """Record the planner's answer; the driver may replace its plan."""
    turn, current = len(episode.turns), episode.plan
    plan, kept = revision.plan, False
    if plan is None and reason is not None:
        plan, kept = current, True
    elif plan is not None:
        plan = _numbered(plan, episode)
    record = PlanRecord(turn, plan, reason, kept, revision.reason)
    edited = yield from PlanReady(record, episode)
    if isinstance(edited, Plan) and edited != record.plan:
        record = PlanRecord(turn, _numbered(edited, episode), reason)
    episode.plans.append(record)
    return record.plan


def _numbered(plan: Plan, episode: Episode) -> Plan:
    """The plan with the number of the episode's next revision."""
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
