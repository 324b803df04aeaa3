"""The status of every step of every plan in a recorded episode, at the time when the plan was replaced."""

from __future__ import annotations

from itertools import zip_longest

from hiplan.coordination.adherence import Tracker
from hiplan.plan import StepStatus
from hiplan.trace import Episode, Turn, Verdict


def step_states(episode: Episode) -> list[dict[int, StepStatus]]:
    """Per plan record, the status of each step at the next record or the end of the episode; ``{}`` without a plan.

    *Done*: completed by a turn, under this plan or an earlier one with the same id and text. If the episode succeeded,
    the steps served by actions on the last plan are done as well. *Failed*: failed after the last turn, or the reason
    of the next record. *Active*: the step served last, unless it is done or failed. All other steps are *open*.
    """
    states: list[dict[int, StepStatus]] = []
    tracker = Tracker(None)
    plan_spans = list(episode.plan_spans())
    for span, after in zip_longest(plan_spans, [later.record for later in plan_spans[1:]]):
        tracker.revise(span.record)
        for turn in span.turns:
            tracker.restore(turn)
        done, failed = set(tracker.done), set(tracker.failed)
        if after and after.reason and after.reason.step is not None:
            failed.add(after.reason.step)
        if after is None and episode.success:
            done |= {turn.step for turn in span.turns if turn.step is not None and _carried_out(turn)}
        known = {tracker.served: StepStatus.ACTIVE} | dict.fromkeys(failed, StepStatus.FAILED)
        known |= dict.fromkeys(done, StepStatus.DONE)
        plan = tracker.plan
        states.append({step.id: known.get(step.id, StepStatus.OPEN) for step in plan.steps} if plan else {})
    return states


def _carried_out(turn: Turn) -> bool:
    return turn.verdict is Verdict.ON_PLAN and not turn.refused
