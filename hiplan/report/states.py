"""How each step of each plan stood when that plan was replaced, read from a trace."""

from __future__ import annotations

from hiplan.coordination.adherence import carried
from hiplan.plan import Plan, StepStatus
from hiplan.trace import Episode, Turn, Verdict


def step_states(episode: Episode) -> list[dict[int, StepStatus]]:
    """Per plan record, each step's state when the next record came, or at the episode's end; ``{}`` without a plan.

    *Done* is what a turn completed; it stays done in later plans that keep its number and text, and what was served
    when the task succeeded is done too. *Failed* is what stood failed at the end or is the next record's reason.
    *Active* is the step served last, unless it is done or has failed. Every other step is *open*.
    """
    states: list[dict[int, StepStatus]] = []
    plan: Plan | None = None
    done: set[int] = set()
    failed: set[int] = set()
    served: int | None = None
    for index, record in enumerate(episode.plans):
        if not record.kept:
            done, failed, served = carried(plan, record.plan, done), set(), None
        plan = record.plan
        following = episode.plans[index + 1] if index + 1 < len(episode.plans) else None
        turns = episode.turns[record.turn : following.turn if following else None]
        for turn in turns:
            done |= set(turn.done)
            failed, served = set(turn.failed), turn.step if turn.step is not None else served
        if following and following.reason and following.reason.step is not None:
            failed.add(following.reason.step)
        if following is None and episode.success:
            done |= {turn.step for turn in turns if turn.step is not None and _carried_out(turn)}
        known = {served: StepStatus.ACTIVE} | dict.fromkeys(failed, StepStatus.FAILED)
        known |= dict.fromkeys(done, StepStatus.DONE)
        states.append({step.id: known.get(step.id, StepStatus.OPEN) for step in plan.steps} if plan else {})
    return states


def _carried_out(turn: Turn) -> bool:
    return turn.verdict is Verdict.ON_PLAN and not turn.refused
