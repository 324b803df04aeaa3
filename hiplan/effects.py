"""Typed effects: what the loop requests from the driver that runs it, with the type of each answer.

``answer = yield from Act(action)`` hands the effect to the driver and receives the answer. ``Generate`` goes to the
model, ``Acted`` and ``PlanReady`` are events for the caller, and all others go to the environment. The answer is
``None`` if the environment does not know it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from hiplan.model import Completion
from hiplan.plan import Plan, StepStatus
from hiplan.task import StepResult, Task
from hiplan.trace import Conversation, Episode, Kind, PlanRecord, Turn, printable

A = TypeVar("A")
T = TypeVar("T")


class Effect(Generic[A]):
    """A request whose answer has the type ``A``."""

    def __iter__(self) -> Generator[Effect[Any], A, A]:
        answer = yield self
        return answer


Effects = Generator[Effect[Any], Any, T]
"""A generator that yields effects and returns a ``T``."""


@dataclass(frozen=True)
class Generate(Effect[Completion]):
    """Request a completion of a role's conversation; ``temperature`` overrides the driver's."""

    conversation: Conversation
    temperature: float | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of an action, with what the environment knows about the plan.

    ``serves``: per plan step, whether the action works towards it, asked before the action. ``status``: per plan step,
    its status after the action. Both are ``None`` without a plan or if the environment is not ``PlanAware``.
    ``state_key``: the state after the action as text; empty if unknown.
    """

    result: StepResult
    serves: tuple[bool, ...] | None = None
    status: tuple[StepStatus, ...] | None = None
    state_key: str = ""


@dataclass(frozen=True)
class Act(Effect[Outcome]):
    """Execute an action in the environment; ``steps``: the descriptions of the plan's steps."""

    action: str
    steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reset(Effect[str]):
    """Reset the environment to the start of the task, for rehearsals; the answer is the first observation."""

    task: Task


@dataclass(frozen=True)
class AskPlan(Effect[Plan | None]):
    """Request the environment's own plan for the rest of the task (``Oracle``)."""


@dataclass(frozen=True)
class AskAction(Effect[str | None]):
    """Request the environment's next action for a plan step, or for its own plan if ``None`` (``Oracle``)."""

    step: str | None


@dataclass(frozen=True)
class Coverage:
    """``subgoals``: the task's subgoals, each with its prerequisites; ``achieved``: the subgoal of each step."""

    subgoals: Mapping[str, tuple[str, ...]]
    achieved: tuple[str | None, ...]


@dataclass(frozen=True)
class AskCoverage(Effect[Coverage | None]):
    """Ask which of the task's subgoals the steps of a plan achieve (``PlanAware``)."""

    steps: tuple[str, ...]


@dataclass(frozen=True)
class PlanReady(Effect[Plan | None]):
    """Event: the planner answered and ``record`` is about to take effect; answer with a plan to use that instead."""

    record: PlanRecord
    episode: Episode


@dataclass(frozen=True)
class Acted(Effect[None]):
    """Event: a turn ended."""

    turn: Turn
    episode: Episode


def generate(conversation: Conversation, kind: Kind, turn: int) -> Effects[Completion]:
    """Generate the role's next answer and append it to the conversation; the returned text is printable."""
    done = yield from Generate(conversation)
    done = replace(done, text=printable(done.text), reasoning=printable(done.reasoning))
    conversation.answer(
        done.text, kind, turn, prompt_ids=done.prompt_ids, ids=done.ids, logprobs=done.logprobs, finish=done.finish,
        reasoning=done.reasoning, dropped=done.dropped,
    )  # fmt: skip
    return done
