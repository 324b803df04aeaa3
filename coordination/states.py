"""How each step of each plan stood when that plan was replaced, read from a trace."""

from __future__ import annotations

from itertools import zip_longest

from hiplan.coordination.adherence import Tracker
from hiplan.plan import StepStatus
from hiplan.trace import Episode, Turn, Verdict


def step_states(episode: Episode) -> list[dict[int, StepStatus]]:
    """Per plan record, each step's state when the next record came, or at the episode's end; ``{}`` without a plan.

    *Done* is what a turn completed; it stays done in later plans that keep its number and text, and what was served
    when the task succeeded is done too. *Failed* is what was failed at the end or is the next record's reason.
    *Active* is the step served last, unless it is done or has failed. Every other step is *open*.
    """
    states: list[dict[int, StepStatus]] = []
    tracker = Tracker(None)
    phases = list(episode.phases())
    for phase, after in zip_longest(phases, [later.record for later in phases[1:]]):
        tracker.revise(phase.record)
        for turn in phase.turns:
            tracker.recall(turn)
        done, failed = set(tracker.done), set(tracker.failed)
        if after and after.reason and after.reason.step is not None:
            failed.add(after.reason.step)
        if after is None and episode.success:
            done |= {turn.step for turn in phase.turns if turn.step is not None and _carried_out(turn)}
        known = {tracker.served: StepStatus.ACTIVE} | dict.fromkeys(failed, StepStatus.FAILED)
        known |= dict.fromkeys(done, StepStatus.DONE)
        plan = tracker.plan
        states.append({step.id: known.get(step.id, StepStatus.OPEN) for step in plan.steps} if plan else {})
    return states


def _carried_out(turn: Turn) -> bool:
    return turn.verdict is Verdict.ON_PLAN and not turn.refused
