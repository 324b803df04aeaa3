"""Which plan step an action serves, and whether the acting follows the plan.

The environment's own predicates are used where it has them (``PlanAware``); otherwise an action
serves a step when it shares at least half of the step's words, and a served step counts as done
once an action that was not refused serves another one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hiplan.coordination.graph import PlanGraph
from hiplan.plan import Plan, StepStatus
from hiplan.task import StepResult
from hiplan.trace import Episode, Verdict

_WORD = re.compile(r"[a-z0-9]+")


class Tracker:
    """The state of one episode's acting against the plan in force. Once done, a step stays done."""

    def __init__(self, plan: Plan | None) -> None:
        self.plan: Plan | None = None
        self.done: set[int] = set()
        self.failed: set[int] = set()
        self.served: int | None = None
        self.replan(plan)

    def replan(self, plan: Plan | None) -> None:
        """A new plan takes effect; steps that keep their id and text stay done."""
        old = {(step.id, step.description) for step in self.plan.steps} if self.plan else set()
        self.done &= {step.id for step in plan.steps if (step.id, step.description) in old} if plan else set()
        self.plan = plan
        self.graph = PlanGraph(plan) if plan else None
        self.failed = set()
        self.served = None

    def ready(self) -> tuple[int, ...]:
        """Ids of the steps that could be worked on now."""
        return self.graph.ready(self.done) if self.graph else ()

    @property
    def used_up(self) -> bool:
        """Whether every step of the plan is done."""
        return self.plan is not None and len(self.done) == len(self.plan.steps)

    def observe(
        self,
        action: str,
        result: StepResult,
        serves: Sequence[bool] | None,
        status: Sequence[StepStatus] | None,
    ) -> Verdict | None:
        """Take in one action and its result; returns the verdict, ``None`` without a plan.

        ``serves`` and ``status`` are the environment's answers per plan step, taken before and after
        the action; ``None`` where it has none.
        """
        self.failed = set()
        if self.plan is None:
            self.served = None
            return None
        steps = self.plan.steps
        serves = serves or [lexically_serves(step.description, action) for step in steps]
        hits = [step.id for step, hit in zip(steps, serves, strict=True) if hit]
        ready = self.ready()
        on_plan = [i for i in hits if i in ready]
        premature = [i for i in hits if i not in ready and i not in self.done]
        verdict, chosen = (
            (Verdict.ON_PLAN, on_plan)
            if on_plan
            else (Verdict.PREMATURE, premature)
            if premature
            else (Verdict.REPEATED, hits)
            if hits
            else (Verdict.OFF_PLAN, [])
        )
        before, self.served = self.served, chosen[0] if chosen else self.served
        if status is not None:
            finished = {s.id for s, now in zip(steps, status, strict=True) if now is StepStatus.DONE}
            while newly := finished & set(self.ready()):  # two steps may read the same: only in their turn
                self.done |= newly
            self.failed |= {s.id for s, now in zip(steps, status, strict=True) if now is StepStatus.FAILED}
        elif before is not None and before != self.served and not result.refused:
            self.done.add(before)
        if result.refused and verdict is Verdict.ON_PLAN:
            self.failed.add(chosen[0])
        self.failed -= self.done
        return verdict

    def failed_step(self) -> int | None:
        """The first ready step that has failed."""
        return next((i for i in self.ready() if i in self.failed), None)


def lexically_serves(step: str, action: str) -> bool:
    """Whether the action shares at least half of the step's words."""
    words = set(_WORD.findall(step.lower()))
    return bool(words) and 2 * len(words & set(_WORD.findall(action.lower()))) >= len(words)


def adherence(episode: Episode) -> float | None:
    """Share of the actions taken under a plan that were on plan; ``None`` without any."""
    verdicts = [turn.verdict for turn in episode.turns if turn.verdict is not None]
    return sum(v is Verdict.ON_PLAN for v in verdicts) / len(verdicts) if verdicts else None
