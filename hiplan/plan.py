"""Plans as typed objects: ``Plan``, ``PlanStep``, ``PlanRevision``.

A plan is a goal and steps that may depend on each other. Step ids are stable across revisions,
so two revisions can be compared step by step (kept, added, dropped, reworded, reordered).
All three are frozen pydantic models: they cross the border to text and JSON.
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

ALSO = ". Also: "  # between a plan's first problem and the others
NAMED = 5  # problems of a plan, in one message
MAX_STEPS = 1000
MAX_STEP_CHARS = 500

StepId = Annotated[int, Field(ge=1, le=999_999)]
Words = Annotated[str, BeforeValidator(lambda value: printable(value) if isinstance(value, str) else value)]
"""Text by a model or a person, which a file can hold."""


class StepStatus(StrEnum):
    """Where a step stands: ``open`` until ``done`` or ``failed``; ``active`` is an open one that is worked on."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"
    ACTIVE = "active"


class ReplanKind(StrEnum):
    """Why a plan should be looked at again."""

    STEP_FAILED = "failed"
    STUCK = "stuck"
    USED_UP = "used up"
    CONTRADICTED = "contradicted"  # a step cannot succeed as written, though its turn may not have come
    OFF_PLAN = "off plan"
    NO_PROGRESS = "no progress"
    LOOK = "look"  # nothing in particular: it is asked regularly


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
        return printable(" ".join(value.split())) if isinstance(value, str) else value


class Plan(BaseModel):
    """An explicit global plan.

    ``steps`` stand in the order the planner wants them done. ``revision`` counts from 0 (the first
    plan of an episode). ``rationale`` is what the planner wrote before its first step.

    Raises ``ValueError`` (pydantic's) that names up to ``NAMED`` ``problems``: duplicate ids, a dependency on an
    unknown step, a cycle.
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
        """The step with that id; ``KeyError`` where there is none."""
        for step in self.steps:
            if step.id == step_id:
                return step
        raise KeyError(step_id)


class PlanRevision(BaseModel):
    """A planner's answer to a request to revise: a new plan, or ``None`` for *keep*."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: Plan | None
    reason: Words = ""


@dataclass(frozen=True)
class PlanScore:
    """A judge's three scores of a plan, each from 1 to 5 (arXiv 2508.00344)."""

    correctness: float
    followability: float
    standardisation: float

    @property
    def mean(self) -> float:
        return (self.correctness + self.followability + self.standardisation) / 3

    @property
    def passes(self) -> bool:
        """PilotRL's filter for given plans: mean at least 4.5, correctness at least 4, the others 5."""
        return self.mean >= 4.5 and self.correctness >= 4 and self.followability == 5 == self.standardisation

    @property
    def perfect(self) -> bool:
        """PilotRL's filter where the judge had no reference trajectory: all three 5."""
        return self.correctness == self.followability == self.standardisation == 5


class PlanDiff(BaseModel):
    """How ``after`` differs from ``before``, as step ids.

    ``kept``: same text (their place or what they wait for may differ). ``moved``: the fewest common steps that must
    change their place. ``rewired``: common steps that wait for others than before. ``done``: left out because they
    were done; ``dropped``: left out though they were not.
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
        """The edit distance: steps reworded, rewired, moved, added and dropped. Leaving out what is done is no edit."""
        return sum(map(len, (self.reworded, self.rewired, self.moved, self.added, self.dropped)))


def diff(before: Plan, after: Plan, done: Collection[int] = ()) -> PlanDiff:
    """Compare two revisions by step id; ``done``: the steps of ``before`` that were done when ``after`` came."""
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
    """The members of a longest rising subsequence of different numbers (patience sorting)."""
    tops: list[int] = []  # the smallest end of a rising subsequence of each length
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
    """What keeps these steps from being a plan, each named; empty for a plan.

    Numbers used twice, unknown ones, circles, and steps that can never begin because of those.
    """
    return list(_problems(steps))


def _problems(steps: Sequence[PlanStep]) -> Iterator[str]:
    """One at a time, because a text can hold very many and few are shown; each in time linear in the plan."""
    counts = Counter(step.id for step in steps)
    for i in sorted(i for i, n in counts.items() if n > 1):
        yield f"step number {i} is used twice; give every step a number of its own"
    after: dict[int, dict[int, None]] = {i: {} for i in counts}
    before: dict[int, list[int]] = {i: [] for i in counts}
    hopeless: set[int] = set()
    for step in steps:
        for other in step.after:
            if other in counts:
                after[step.id][other] = None
                before[other].append(step.id)
            else:
                yield f"step {step.id} comes after step {other}, but there is no step {other}"
                hopeless.add(step.id)
    for circle in _circles(after):
        chain = " after ".join(map(str, [*circle, circle[0]]))
        yield f"the steps wait for each other in a circle: {chain}"
        hopeless |= set(circle)
    causes: dict[int, int] = {}  # the smallest hopeless step that a step waits for
    for cause in sorted(hopeless):
        reached = [cause]
        while reached:
            for i in before[reached.pop()]:
                if i not in causes:
                    causes[i] = cause
                    reached.append(i)
    for step in steps:
        if step.id in causes and step.id not in hopeless:
            yield f"step {step.id} can never begin: it waits for step {causes[step.id]}"


def _circles(after: Mapping[int, Iterable[int]]) -> Iterator[list[int]]:
    """Circles without a common step, so that none is left without them: depth-first search, linear in all.

    networkx's ``find_cycle`` begins anew at every step, which takes minutes on a large plan.
    """
    over: set[int] = set()  # steps that lead to no circle, and those of the circles found
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
