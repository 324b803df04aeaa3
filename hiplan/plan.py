"""Plans as typed objects: ``Plan``, ``PlanStep``, ``PlanRevision``.

A plan is a goal and a sequence of steps that may depend on each other. Step ids are stable across revisions, so two
revisions can be compared step by step (``diff``). All three are frozen pydantic models, because they are parsed from
text and JSON.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from hiplan.text import printable

ALSO = ". Also: "  # separates a plan's first problem from the others
NAMED = 5  # problems listed in one message
MAX_STEPS = 1000
MAX_STEP_CHARS = 500

StepId = Annotated[int, Field(ge=1, le=999_999)]
Words = Annotated[str, BeforeValidator(lambda value: printable(value) if isinstance(value, str) else value)]
"""Text written by a model or a person; lone surrogates are replaced, so that it can be stored as UTF-8."""


class StepStatus(StrEnum):
    """The status of a step: ``open`` until ``done`` or ``failed``; ``active`` is the open step in progress."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"
    ACTIVE = "active"


class ReplanKind(StrEnum):
    """Why the planner is asked for a revision."""

    STEP_FAILED = "failed"
    STUCK = "stuck"
    USED_UP = "used up"
    CONTRADICTED = "contradicted"  # a step cannot succeed as written; it may depend on steps that are still open
    OFF_PLAN = "off plan"
    NO_PROGRESS = "no progress"
    SCHEDULED = "look"  # a scheduled check


class ReplanReason(BaseModel):
    """Why the coordination layer asks for a revision; ``step`` is the id of the failed step, if any."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ReplanKind
    step: int | None = None


class PlanStep(BaseModel):
    """One step of a plan.

    ``id``: the number the planner gave it. ``after``: the ids of the steps it depends on. The description is one line;
    each run of white space becomes one space.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: StepId
    description: str = Field(min_length=1, max_length=MAX_STEP_CHARS)
    after: tuple[StepId, ...] = ()

    @field_validator("description", mode="before")
    @classmethod
    def _one_line(cls, value: object) -> object:
        return printable(" ".join(value.split())) if isinstance(value, str) else value


class Plan(BaseModel):
    """An explicit global plan.

    ``steps`` are in the planner's intended order. ``revision`` counts from 0, the first plan of an episode.
    ``rationale``: what the planner wrote before its first step.

    Raises pydantic's ``ValidationError`` with up to ``NAMED`` of the plan's ``problems``: duplicate ids, dependencies
    on unknown steps, cycles.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[PlanStep, ...] = Field(min_length=1, max_length=MAX_STEPS)
    goal: Words = ""
    rationale: Words = ""
    revision: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        found = list(islice(_problems(self.steps), NAMED + 1))
        if found:
            first, *others = found[:NAMED]
            more = "; ".join(others) + "; ..." * (len(found) > NAMED)
            raise ValueError(f"{first}{ALSO}{more}" if others else first)
        return self

    def step(self, step_id: int) -> PlanStep:
        """The step with that id. Raises ``KeyError`` if there is none."""
        for step in self.steps:
            if step.id == step_id:
                return step
        raise KeyError(step_id)


class PlanRevision(BaseModel):
    """A planner's answer: a plan, or ``None``, which means *no plan* for a first plan and *keep* for a revision."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: Plan | None
    reason: Words = ""


@dataclass(frozen=True)
class PlanScore:
    """A judge's three scores of a plan, each from 1 (worst) to 5 (best) (PilotRL, arXiv 2508.00344)."""

    correctness: float
    followability: float
    standardisation: float

    @property
    def mean(self) -> float:
        return (self.correctness + self.followability + self.standardisation) / 3

    @property
    def passes(self) -> bool:
        """PilotRL's filter for given plans: mean at least 4.5, correctness at least 4, the other two 5."""
        return self.mean >= 4.5 and self.correctness >= 4 and self.followability == 5 == self.standardisation

    @property
    def perfect(self) -> bool:
        """PilotRL's filter if the judge had no reference trajectory: all three scores 5."""
        return self.correctness == self.followability == self.standardisation == 5


class PlanDiff(BaseModel):
    """The difference between two revisions, as step ids.

    ``kept``: steps with the same text; their position and dependencies may differ. ``reworded``: steps with another
    text. ``rewired``: steps with other dependencies. ``moved``: a smallest set of common steps whose move gives the new
    order. ``added``: new ids. ``done`` and ``dropped``: steps left out after and before they were done.
    """

    model_config = ConfigDict(frozen=True)

    kept: tuple[int, ...] = ()
    reworded: tuple[int, ...] = ()
    rewired: tuple[int, ...] = ()
    moved: tuple[int, ...] = ()
    added: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()
    done: tuple[int, ...] = ()

    @property
    def distance(self) -> int:
        """The edit distance: the number of steps reworded, rewired, moved, added, or dropped; ``done`` counts 0."""
        return sum(map(len, (self.reworded, self.rewired, self.moved, self.added, self.dropped)))


def diff(before: Plan, after: Plan, done: Collection[int] = ()) -> PlanDiff:
    """Compare two revisions by step id; ``done``: the steps of ``before`` that were done at the revision."""
    old = {step.id: step for step in before.steps}
    new = {step.id: step for step in after.steps}
    common = [i for i in old if i in new]
    place = {i: n for n, i in enumerate(new)}
    steady = _longest_rising([place[i] for i in common])
    left_out = [i for i in old if i not in new]
    return PlanDiff(
        kept=tuple(i for i in common if old[i].description == new[i].description),
        reworded=tuple(i for i in common if old[i].description != new[i].description),
        rewired=tuple(i for i in common if set(old[i].after) != set(new[i].after)),
        moved=tuple(i for i in common if place[i] not in steady),
        added=tuple(i for i in new if i not in old),
        dropped=tuple(i for i in left_out if i not in done),
        done=tuple(i for i in left_out if i in done),
    )


def _longest_rising(values: Sequence[int]) -> set[int]:
    """The members of a longest increasing subsequence of distinct numbers (patience sorting)."""
    tops: list[int] = []  # the smallest last value of an increasing subsequence of each length
    before: dict[int, int | None] = {}
    for value in values:
        pile = bisect_left(tops, value)
        before[value] = tops[pile - 1] if pile else None
        tops[pile : pile + 1] = [value]
    found: set[int] = set()
    last = tops[-1] if tops else None
    while last is not None:
        found.add(last)
        last = before[last]
    return found


def problems(steps: Sequence[PlanStep]) -> list[str]:
    """The problems that make these steps an invalid plan, one text each; empty for a valid plan.

    Duplicate ids, dependencies on unknown steps, cycles, and steps that can never start because of those.
    """
    return list(_problems(steps))


def _problems(steps: Sequence[PlanStep]) -> Iterator[str]:
    """Lazy, because a text can have many problems and only a few are shown; each takes time linear in the plan."""
    counts = Counter(step.id for step in steps)
    for i in sorted(i for i, n in counts.items() if n > 1):
        yield f"step number {i} is used twice; give every step a number of its own"
    after: dict[int, dict[int, None]] = {i: {} for i in counts}
    before: dict[int, list[int]] = {i: [] for i in counts}
    impossible: set[int] = set()  # steps with a problem of their own
    for step in steps:
        for other in step.after:
            if other in counts:
                after[step.id][other] = None
                before[other].append(step.id)
            else:
                yield f"step {step.id} comes after step {other}, but there is no step {other}"
                impossible.add(step.id)
    for circle in _circles(after):
        chain = " after ".join(map(str, [*circle, circle[0]]))
        yield f"the steps wait for each other in a circle: {chain}"
        impossible |= set(circle)
    causes: dict[int, int] = {}  # per step, the smallest impossible step that it depends on
    for cause in sorted(impossible):
        reached = [cause]
        while reached:
            for i in before[reached.pop()]:
                if i not in causes:
                    causes[i] = cause
                    reached.append(i)
    for step in steps:
        if step.id in causes and step.id not in impossible:
            yield f"step {step.id} can never begin: it waits for step {causes[step.id]}"


def _circles(after: Mapping[int, Iterable[int]]) -> Iterator[list[int]]:
    """Disjoint cycles whose removal leaves no cycle, by one depth-first search in linear time.

    networkx's ``find_cycle`` restarts at every step, which takes minutes on a large plan.
    """
    over: set[int] = set()  # steps that lead to no cycle, and the steps of the cycles found
    for start in after:
        while start not in over:
            path, place, ahead = [start], {start: 0}, [iter(after[start])]
            while path:
                following = next((i for i in ahead[-1] if i not in over), None)
                if following in place:
                    circle = path[place[following] :]
                    yield circle
                    over.update(circle)
                    break
                if following is None:
                    over.add(path[-1])
                    del place[path.pop()], ahead[-1]
                else:
                    place[following] = len(path)
                    path.append(following)
                    ahead.append(iter(after[following]))
