"""When to ask the planner for a revision: a policy is a function of the tracker and the episode.

Policies combine with ``any_of`` and are bounded by ``capped``. None asks where there is no plan.
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
    """Keep the first plan whatever happens."""
    return None


def every(turns: int = 1) -> ReplanPolicy:
    """Ask after every so many turns; with 1 as in the paper (AdaPlan): the planner sees each result, and may keep."""

    def asks(tracker: Tracker, episode: Episode) -> ReplanReason | None:
        return _because(ReplanKind.LOOK, tracker) if len(episode.turns) % turns == 0 else None

    return asks


def failed_step(tracker: Tracker, episode: Episode) -> ReplanReason | None:
    """Ask when a step whose turn it is has failed."""
    return _because(ReplanKind.STEP_FAILED, tracker, tracker.failed_step())


def contradicted(tracker: Tracker, episode: Episode) -> ReplanReason | None:
    """Ask when any step, also a later one, is known to fail as written: the plan assumed what is not so."""
    return _because(ReplanKind.CONTRADICTED, tracker, min(tracker.failed, default=None))


def used_up(tracker: Tracker, episode: Episode) -> ReplanReason | None:
    """Ask when every step is done and the task is not."""
    return _because(ReplanKind.USED_UP, tracker) if tracker.used_up else None


def stuck(turns: int = 3) -> ReplanPolicy:
    """Ask when so many actions in a row had no effect."""

    def asks(tracker: Tracker, episode: Episode) -> ReplanReason | None:
        return _because(ReplanKind.STUCK, tracker) if idle_turns(episode) == turns else None

    return asks


def off_plan(turns: int = 3) -> ReplanPolicy:
    """Ask when so many actions in a row (and again after as many) served no step."""
    return _in_a_row(ReplanKind.OFF_PLAN, turns, lambda turn: turn.verdict is Verdict.OFF_PLAN)


def no_progress(turns: int = 5) -> ReplanPolicy:
    """Ask when so many actions in a row (and again after as many) completed no step."""
    return _in_a_row(ReplanKind.NO_PROGRESS, turns, lambda turn: not turn.done)


def any_of(*policies: ReplanPolicy) -> ReplanPolicy:
    """Ask when one of them does, for the reason of the first that does."""

    def asks(tracker: Tracker, episode: Episode) -> ReplanReason | None:
        return next((reason for one in policies if (reason := one(tracker, episode))), None)

    return asks


def capped(replan: ReplanPolicy, revisions: int) -> ReplanPolicy:
    """Ask so often in an episode at most; an answer that keeps the plan counts."""

    def asks(tracker: Tracker, episode: Episode) -> ReplanReason | None:
        return replan(tracker, episode) if len(episode.plans) <= revisions else None

    return asks


def on_failure(cap: int = 8, stuck_after: int = 3) -> ReplanPolicy:
    """The default: ask when a ready step has failed, when the plan is used up, or after idle actions in a row.

    ``cap``: revisions asked for in one episode at most. ``stuck_after``: idle actions that count as stuck.
    """
    return capped(any_of(failed_step, used_up, stuck(stuck_after)), cap)


REPLAN_POLICIES: Mapping[str, ReplanPolicy] = {  # those that settings name
    "never": never,
    "on_failure": on_failure(),
    "every_turn": every(1),
    "every_turn_told": any_of(failed_step, used_up, stuck(), every(1)),  # the reason where there is one
}


def idle_turns(episode: Episode) -> int:
    """How many of the last actions in a row had no effect: refused, or the state stayed as it was."""
    idle = 0
    for turn, before in zip(reversed(episode.turns), [*reversed(episode.turns[:-1]), None], strict=False):
        if not (turn.refused or unchanged(turn, before)):
            break
        idle += 1
    return idle


def unchanged(turn: Turn, before: Turn | None) -> bool:
    """Whether the state is known to be the same after both turns."""
    return before is not None and turn.state_key != "" and turn.state_key == before.state_key


def _because(kind: ReplanKind, tracker: Tracker, step: int | None = None) -> ReplanReason | None:
    needs_step = kind in (ReplanKind.STEP_FAILED, ReplanKind.CONTRADICTED)
    if tracker.plan is None or (needs_step and step is None):
        return None
    return ReplanReason(kind=kind, step=step)


def _in_a_row(kind: ReplanKind, turns: int, counts: Callable[[Turn], bool]) -> ReplanPolicy:
    def asks(tracker: Tracker, episode: Episode) -> ReplanReason | None:
        since = episode.turns[episode.plans[-1].turn :] if episode.plans else []
        run = sum(1 for _ in takewhile(counts, reversed(since)))
        return _because(kind, tracker) if run and run % turns == 0 else None

    return asks
