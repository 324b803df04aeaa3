"""Replan policies decide when to ask the planner for a revision.

A policy is a function of the tracker and the episode that returns a reason, or ``None`` for no revision. ``any_of``
combines policies and ``capped`` limits their requests. No policy asks for a revision without a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import Literal

from hiplan.coordination.adherence import Tracker
from hiplan.plan import ReplanKind, ReplanReason
from hiplan.trace import Episode, Turn, Verdict

ReplanPolicy = Callable[[Tracker, Episode], ReplanReason | None]
ReplanName = Literal["never", "on_failure", "every_turn", "every_turn_told"]


def never(tracker: Tracker, episode: Episode) -> ReplanReason | None:
    """Never ask: keep the first plan."""
    return None


def every(turns: int = 1) -> ReplanPolicy:
    """Ask after every ``turns`` turns. With 1, as in AdaPlan, the planner sees every result and may keep the plan."""

    def policy(tracker: Tracker, episode: Episode) -> ReplanReason | None:
        return _reason(ReplanKind.SCHEDULED, tracker) if len(episode.turns) % turns == 0 else None

    return policy


def failed_step(tracker: Tracker, episode: Episode) -> ReplanReason | None:
    """Ask when a ready step has failed."""
    return _reason(ReplanKind.STEP_FAILED, tracker, tracker.failed_step())


def contradicted(tracker: Tracker, episode: Episode) -> ReplanReason | None:
    """Ask when any step, ready or not, cannot succeed as written: an assumption of the plan is wrong."""
    return _reason(ReplanKind.CONTRADICTED, tracker, min(tracker.failed, default=None))


def used_up(tracker: Tracker, episode: Episode) -> ReplanReason | None:
    """Ask when every step is done but the task is not."""
    return _reason(ReplanKind.USED_UP, tracker) if tracker.used_up else None


def stuck(turns: int = 3) -> ReplanPolicy:
    """Ask after ``turns`` consecutive actions without effect."""

    def policy(tracker: Tracker, episode: Episode) -> ReplanReason | None:
        return _reason(ReplanKind.STUCK, tracker) if idle_turns(episode) == turns else None

    return policy


def off_plan(turns: int = 3) -> ReplanPolicy:
    """Ask after every ``turns`` consecutive actions that served no step."""
    return _consecutive(ReplanKind.OFF_PLAN, turns, lambda turn: turn.verdict is Verdict.OFF_PLAN)


def no_progress(turns: int = 5) -> ReplanPolicy:
    """Ask after every ``turns`` consecutive actions that completed no step."""
    return _consecutive(ReplanKind.NO_PROGRESS, turns, lambda turn: not turn.done)


def any_of(*policies: ReplanPolicy) -> ReplanPolicy:
    """Ask when any of the policies asks; the first one gives the reason."""

    def policy(tracker: Tracker, episode: Episode) -> ReplanReason | None:
        return next((reason for one in policies if (reason := one(tracker, episode))), None)

    return policy


def capped(replan: ReplanPolicy, revisions: int) -> ReplanPolicy:
    """Ask at most ``revisions`` times per episode; answers that keep the plan count."""

    def policy(tracker: Tracker, episode: Episode) -> ReplanReason | None:
        return replan(tracker, episode) if len(episode.plans) <= revisions else None

    return policy


def on_failure(cap: int = 8, stuck_after: int = 3) -> ReplanPolicy:
    """The default: ask when a ready step has failed, when every step is done, or when the executor is stuck.

    ``cap``: the most requests per episode. ``stuck_after``: consecutive actions without effect that count as stuck.
    """
    return capped(any_of(failed_step, used_up, stuck(stuck_after)), cap)


REPLAN_POLICIES: Mapping[str, ReplanPolicy] = {  # the names in settings
    "never": never,
    "on_failure": on_failure(),
    "every_turn": every(1),
    "every_turn_told": any_of(failed_step, used_up, stuck(), every(1)),  # names a failure as the reason if there is one
}


def idle_turns(episode: Episode) -> int:
    """The number of consecutive actions without effect at the end: refused, or with an unchanged state."""
    idle = 0
    for turn, before in zip(reversed(episode.turns), [*reversed(episode.turns[:-1]), None], strict=False):
        if not (turn.refused or unchanged(turn, before)):
            break
        idle += 1
    return idle


def unchanged(turn: Turn, before: Turn | None) -> bool:
    """Whether the state keys of both turns are known and equal."""
    return before is not None and turn.state_key != "" and turn.state_key == before.state_key


def _reason(kind: ReplanKind, tracker: Tracker, step: int | None = None) -> ReplanReason | None:
    needs_step = kind in (ReplanKind.STEP_FAILED, ReplanKind.CONTRADICTED)
    if tracker.plan is None or (needs_step and step is None):
        return None
    return ReplanReason(kind=kind, step=step)


def _consecutive(kind: ReplanKind, turns: int, counts: Callable[[Turn], bool]) -> ReplanPolicy:
    def policy(tracker: Tracker, episode: Episode) -> ReplanReason | None:
        since = episode.turns[episode.plans[-1].turn :] if episode.plans else []
        run = sum(1 for _ in takewhile(counts, reversed(since)))
        return _reason(kind, tracker) if run and run % turns == 0 else None

    return policy
