"""Plans as typed objects: ``Plan``, ``PlanStep``, ``PlanRevision``.

A plan is a goal and steps that may depend on each other. Step ids are stable across revisions,
so two revisions can be compared step by step (kept, added, dropped, reworded, reordered).
All three are frozen pydantic models: they cross the border to text and JSON.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_STEPS = 1000
MAX_STEP_CHARS = 500

StepId = Annotated[int, Field(ge=1, le=999_999)]


class StepStatus(StrEnum):
    """Where a step stands: ``open`` until it is ``done`` or has ``failed``."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"


class ReplanKind(StrEnum):
    """Why a plan should be looked at again."""

    STEP_FAILED = "failed"
    STUCK = "stuck"
    USED_UP = "used up"


class ReplanReason(BaseModel):
    """Why the coordination layer asks for a revision; ``step`` is the id of the failed step, if any."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ReplanKind
    step: int | None = None


class PlanStep(BaseModel):
    """One step of a plan.

    ``id`` is what the planner numbered it; ``after`` holds the ids of the steps it depends on. The description
    is one line: runs of white space become one space.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: StepId
    description: str = Field(min_length=1, max_length=MAX_STEP_CHARS)
    after: tuple[StepId, ...] = ()

    @field_validator("description", mode="before")
    @classmethod
    def _one_line(cls, value: object) -> object:
        return " ".join(value.split()) if isinstance(value, str) else value


class Plan(BaseModel):
    """An explicit global plan.

    ``steps`` stand in the order the planner wants them done. ``revision`` counts from 0 (the first
    plan of an episode). ``rationale`` is what the planner wrote before its first step.

    Raises ``ValueError`` (pydantic's) on duplicate ids, a dependency on an unknown step, or a cycle.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[PlanStep, ...] = Field(min_length=1, max_length=MAX_STEPS)
    goal: str = ""
    rationale: str = ""
    revision: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        ids = [step.id for step in self.steps]
        twice = sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []
        if twice:
            raise ValueError(f"step number {twice[0]} is used twice; give every step a number of its own")
        known = set(ids)
        for step in self.steps:
            for dependency in step.after:
                if dependency not in known:
                    raise ValueError(f"step {step.id} comes after step {dependency}, but there is no step {dependency}")
        cycle = _first_cycle({step.id: step.after for step in self.steps})
        if cycle:
            chain = " after ".join(str(i) for i in cycle)
            raise ValueError(f"the steps wait for each other in a circle: {chain}")
        return self

    def step(self, step_id: int) -> PlanStep:
        """The step with that id; ``KeyError`` where there is none."""
        for step in self.steps:
            if step.id == step_id:
                return step
        raise KeyError(step_id)


class PlanRevision(BaseModel):
    """A planner's answer to a request to revise: a new plan, or ``None`` for *keep*."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: Plan | None
    reason: str = ""


class PlanDiff(BaseModel):
    """How ``after`` differs from ``before``, as step ids."""

    model_config = ConfigDict(frozen=True)

    kept: tuple[int, ...]
    reworded: tuple[int, ...]
    added: tuple[int, ...]
    dropped: tuple[int, ...]
    reordered: bool


def diff(before: Plan, after: Plan) -> PlanDiff:
    """Compare two revisions by step id."""
    old = {step.id: step for step in before.steps}
    new = {step.id: step for step in after.steps}
    common = [i for i in old if i in new]
    return PlanDiff(
        kept=tuple(i for i in common if old[i].description == new[i].description),
        reworded=tuple(i for i in common if old[i].description != new[i].description),
        added=tuple(i for i in new if i not in old),
        dropped=tuple(i for i in old if i not in new),
        reordered=common != [i for i in new if i in old],
    )


def _first_cycle(edges: dict[int, tuple[int, ...]]) -> list[int]:
    """Ids along one dependency cycle (first repeated at the end), or an empty list."""
    state: dict[int, int] = {}  # 1: on the current path, 2: finished
    for root in edges:
        path = [root]
        work = [iter(edges[root])] if root not in state else []
        if work:
            state[root] = 1
        while work:
            for dependency in work[-1]:
                if state.get(dependency) == 1:
                    return [*path[path.index(dependency) :], dependency]
                if dependency not in state:
                    state[dependency] = 1
                    path.append(dependency)
                    work.append(iter(edges[dependency]))
                    break
            else:
                work.pop()
                state[path.pop()] = 2
    return []
