"""What the loop asks of its driver: typed effects with typed answers.

An effect is asked for with ``answer = yield from Act(action)``: the driver is given the effect and sends the answer.
``Acted`` and ``PlanReady`` are events; the others are questions to the model (``Generate``) or to the environment. What
an environment does not know is ``None``.
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
    """A request that is answered with an ``A``."""

    def __iter__(self) -> Generator[Effect[Any], A, A]:
        answer = yield self
        return answer


Effects = Generator[Effect[Any], Any, T]
"""A generator that yields effects and finally returns a ``T``."""


@dataclass(frozen=True)
class Generate(Effect[Completion]):
    """Continue a role's conversation; ``temperature`` overrides the driver's."""

    conversation: Conversation
    temperature: float | None = None


@dataclass(frozen=True)
class Outcome:
    """An action's result, and what else the environment knows of it.

    ``serves``: per plan step, whether the action works towards it, asked before the action; ``status``: per plan step,
    where it stands after the action. Both are ``None`` without a plan and where the environment is not ``PlanAware``.
    ``state_key``: the state after the action, as text; empty where it is unknown.
    """

    result: StepResult
    serves: tuple[bool, ...] | None = None
    status: tuple[StepStatus, ...] | None = None
    state_key: str = ""


@dataclass(frozen=True)
class Act(Effect[Outcome]):
    """Carry out an action in the environment; ``steps``: descriptions of the plan's steps."""

    action: str
    steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reset(Effect[str]):
    """Restart the task in the same environment, for rehearsals before the first action; the first observation."""

    task: Task


@dataclass(frozen=True)
class AskPlan(Effect[Plan | None]):
    """The environment's own plan for what is left of the task (``Oracle``)."""


@dataclass(frozen=True)
class AskAction(Effect[str | None]):
    """The environment's own next action under a plan step, or under its own plan for ``None`` (``Oracle``)."""

    step: str | None


@dataclass(frozen=True)
class Coverage:
    """``subgoals``: what the task needs, each with what must come before it; ``achieved``: the subgoal of each step."""

    subgoals: Mapping[str, tuple[str, ...]]
    achieved: tuple[str | None, ...]


@dataclass(frozen=True)
class AskCoverage(Effect[Coverage | None]):
    """Which of the task's subgoals the steps of a plan achieve (``PlanAware``)."""

    steps: tuple[str, ...]


@dataclass(frozen=True)
class PlanReady(Effect[Plan | None]):
    """Event: a plan (or none, or *keep*) is about to take effect; the answer is the plan to use instead, if any."""

    record: PlanRecord
    episode: Episode


@dataclass(frozen=True)
class Acted(Effect[None]):
    """Event: a turn is over."""

    turn: Turn
    episode: Episode


def answered(conversation: Conversation, kind: Kind, turn: int) -> Effects[Completion]:
    """Continue the conversation and keep the answer in it; the completion's text is printable."""
    done = yield from Generate(conversation)
    done = replace(done, text=printable(done.text), reasoning=printable(done.reasoning))
    conversation.answer(
        done.text, kind, turn, prompt_ids=done.prompt_ids, ids=done.ids, logprobs=done.logprobs, finish=done.finish,
        reasoning=done.reasoning, dropped=done.dropped,
    )  # fmt: skip
    return done
