"""Planners without a model: none (ReAct), given plans, the oracle, and a recorder that writes demonstrations."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hiplan.effects import AskPlan, Effects
from hiplan.plan import Plan, PlanRevision, ReplanReason
from hiplan.planners.base import PlannerProtocol
from hiplan.prompts import FULL, KEEP, Prompts
from hiplan.trace import Episode


class NoPlanner:
    """Gives no plan, which makes the executor a ReAct agent."""

    def plan(self, episode: Episode) -> Effects[PlanRevision]:
        return PlanRevision(plan=None)
        yield  # makes this a generator

    def revise(self, episode: Episode, reason: ReplanReason, done: tuple[int, ...]) -> Effects[PlanRevision]:
        return PlanRevision(plan=None)
        yield


class FixedPlanner:
    """Gives one fixed plan and never revises it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def plan(self, episode: Episode) -> Effects[PlanRevision]:
        return PlanRevision(plan=self._plan)
        yield

    def revise(self, episode: Episode, reason: ReplanReason, done: tuple[int, ...]) -> Effects[PlanRevision]:
        return PlanRevision(plan=None)
        yield


class GivenPlans:
    """Gives a fixed plan per task id and never revises it; no plan for other tasks."""

    def __init__(self, plans: Mapping[str, Plan]) -> None:
        self._plans = plans

    def plan(self, episode: Episode) -> Effects[PlanRevision]:
        return PlanRevision(plan=self._plans.get(episode.task.id))
        yield

    def revise(self, episode: Episode, reason: ReplanReason, done: tuple[int, ...]) -> Effects[PlanRevision]:
        return PlanRevision(plan=None)
        yield


class OraclePlanner:
    """Plans with the environment's oracle, from what the agent has observed; revises if that changes the plan."""

    def plan(self, episode: Episode) -> Effects[PlanRevision]:
        return PlanRevision(plan=(yield from AskPlan()))

    def revise(self, episode: Episode, reason: ReplanReason, done: tuple[int, ...]) -> Effects[PlanRevision]:
        known = yield from AskPlan()
        current = episode.plan
        if known is None or current is None:
            return PlanRevision(plan=None)
        plan = renumber(known, current, done)
        left = tuple(step.description for step in current.steps if step.id not in done)
        same = left == tuple(step.description for step in plan.steps)
        return PlanRevision(plan=None if same else plan)


class WrittenPlanner:
    """Records another planner's plans in the conversation as answers to ``prompts``, to make demonstrations."""

    def __init__(self, planner: PlannerProtocol, prompts: Prompts = FULL) -> None:
        self._planner, self.prompts = planner, prompts

    def plan(self, episode: Episode) -> Effects[PlanRevision]:
        revision = yield from self._planner.plan(episode)
        if revision.plan is not None:
            conversation = episode.conversation("planner")
            conversation.ask(self.prompts.planner_system, 0, author="system")
            conversation.ask(self.prompts.plan(episode), 0)
            conversation.answer(self.prompts.format.render(revision.plan), "plan", 0)
        return revision

    def revise(self, episode: Episode, reason: ReplanReason, done: tuple[int, ...]) -> Effects[PlanRevision]:
        revision = yield from self._planner.revise(episode, reason, done)
        turn, conversation = len(episode.turns), episode.conversation("planner")
        conversation.ask(self.prompts.revise(episode, reason, done), turn)
        text = KEEP if revision.plan is None else self.prompts.format.render(revision.plan)
        conversation.answer(text, "revision", turn)
        return revision


def renumber(plan: Plan, previous: Plan, done: Collection[int] = ()) -> Plan:
    """Renumber the steps: those that are open in ``previous`` keep their ids there, the others get new ids."""
    free = {step.description: step.id for step in reversed(previous.steps) if step.id not in done}
    fresh = max(step.id for step in previous.steps) + 1
    ids: dict[int, int] = {}
    for step in plan.steps:
        if step.description in free:
            ids[step.id] = free.pop(step.description)
        else:
            ids[step.id] = fresh
            fresh += 1
    steps = tuple(
        step.model_copy(update={"id": ids[step.id], "after": tuple(ids[i] for i in step.after)}) for step in plan.steps
    )
    return plan.model_copy(update={"steps": steps})
