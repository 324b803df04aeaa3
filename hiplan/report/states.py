"""How each step of each plan stood when that plan was replaced, derived from a trace.

A trace keeps verdicts, not the tracker's state, so the states are inferred. What an on-plan or repeated verdict
implies is certain; that a step is done once the acting moved past it is the tracker's own guess where the
environment says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import networkx as nx

from hiplan.coordination import PlanGraph
from hiplan.plan import Plan, ReplanKind, ReplanReason, StepStatus
from hiplan.trace import Episode, Turn, Verdict


def step_states(episode: Episode) -> list[dict[int, StepStatus]]:
    """Per plan record, each step's state when the next record came, or at the episode's end.

    Derived, not recorded. A step is *done* when a later step that waits for it was served on plan, when it was
    called repeated, when the acting moved past it by an on-plan action that was not refused, when the plan was used
    up, or when it was served and the task succeeded; it stays done in later plans that keep its number and
    text. It has *failed* when the next record gives it as the reason. Otherwise it is *open*. ``{}`` without a plan.
    """
    states: list[dict[int, StepStatus]] = []
    for index, record in enumerate(episode.plans):
        if record.plan is None:
            states.append({})
            continue
        before = episode.plans[index - 1].plan if index else None
        start = _carried(record.plan, record.kept, before, states[-1]) if before else {}
        following = episode.plans[index + 1] if index + 1 < len(episode.plans) else None
        turns = episode.turns[record.turn : following.turn if following else None]
        reason = following.reason if following else None
        states.append(_advance(record.plan, start, turns, reason, following is None and episode.success))
    return states


def _carried(plan: Plan, kept: bool, before: Plan, states: Mapping[int, StepStatus]) -> dict[int, StepStatus]:
    """What a plan takes over from the one before it: done steps of the same number and text; all if it is kept."""
    if kept:
        return dict(states)
    old = {(step.id, step.description) for step in before.steps if states.get(step.id) is StepStatus.DONE}
    return {step.id: StepStatus.DONE for step in plan.steps if (step.id, step.description) in old}


def _advance(
    plan: Plan, start: Mapping[int, StepStatus], turns: Sequence[Turn], reason: ReplanReason | None, success: bool
) -> dict[int, StepStatus]:
    """The states after ``turns``, when ``reason`` ended the plan or the episode ended."""
    graph = PlanGraph(plan).graph
    done = {i for i, state in start.items() if state is StepStatus.DONE}
    failed = {i for i, state in start.items() if state is StepStatus.FAILED}
    touched: set[int] = set()  # those served by an on-plan action that was not refused
    current: int | None = None
    for turn in turns:
        if turn.step is None or turn.step not in graph:
            continue
        if turn.verdict is Verdict.REPEATED:
            done.add(turn.step)
        elif turn.verdict is Verdict.ON_PLAN:
            if current != turn.step:
                done |= touched & {current}
            current = turn.step
            done |= nx.ancestors(graph, current)
            if not turn.refused:
                touched.add(current)
    if reason is not None and reason.kind is ReplanKind.USED_UP:
        done |= set(graph)
    if reason is not None and reason.step is not None and reason.step in graph:
        if reason.step != current:
            done |= touched & {current}
        done = (done | nx.ancestors(graph, reason.step)) - {reason.step}
        failed.add(reason.step)
    if success:
        done |= touched
    return {
        step.id: StepStatus.DONE if step.id in done else StepStatus.FAILED if step.id in failed else StepStatus.OPEN
        for step in plan.steps
    }
