"""When to ask the planner for a revision: a policy is a function of the tracker and the episode."""

from __future__ import annotations

from collections.abc import Callable

from hiplan.coordination.adherence import Tracker
from hiplan.plan import ReplanKind, ReplanReason
from hiplan.trace import Episode

ReplanPolicy = Callable[[Tracker, Episode], ReplanReason | None]


def never(tracker: Tracker, episode: Episode) -> ReplanReason | None:
    """Keep the first plan whatever happens."""
    return None


def idle_turns(episode: Episode) -> int:
    """How many of the last actions in a row had no effect: refused, or the state stayed as it was."""
    idle = 0
    for turn, before in zip(reversed(episode.turns), [*reversed(episode.turns[:-1]), None], strict=False):
        same = before is not None and turn.state_key != "" and turn.state_key == before.state_key
        if not (turn.refused or same):
            break
        idle += 1
    return idle


def on_failure(cap: int = 8, stuck_after: int = 3) -> ReplanPolicy:
    """Ask when a ready step has failed, when the plan is used up, or after idle actions in a row.

    ``cap``: revisions asked for in one episode at most. ``stuck_after``: idle actions that count as stuck.
    """

    def policy(tracker: Tracker, episode: Episode) -> ReplanReason | None:
        if tracker.plan is None or len(episode.plans) > cap:
            return None
        failed = tracker.failed_step()
        if failed is not None:
            return ReplanReason(kind=ReplanKind.STEP_FAILED, step=failed)
        if tracker.used_up:
            return ReplanReason(kind=ReplanKind.USED_UP)
        if idle_turns(episode) == stuck_after:
            return ReplanReason(kind=ReplanKind.STUCK)
        return None

    return policy
