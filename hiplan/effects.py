"""What the loop asks of its driver. Each is yielded by the loop and answered through ``send``.

``Generate`` is answered with a ``Completion``, ``Act`` with a ``StepResult``, ``Reset`` with the first observation,
``Consult`` with what the environment knows (``None`` where it does not), ``PlanReady`` with ``None`` or the plan to use
instead (a person may edit it), ``Acted`` with ``None``.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from hiplan.task import Task
from hiplan.trace import Conversation, Episode, Kind, PlanRecord, Turn, printable


@dataclass(frozen=True)
class Generate:
    """Continue a role's conversation; ``temperature`` overrides the driver's."""

    conversation: Conversation
    temperature: float | None = None


@dataclass(frozen=True)
class Act:
    """Carry out an action in the environment."""

    action: str


@dataclass(frozen=True)
class Reset:
    """Begin the task anew in the same environment: for rehearsals before the first action."""

    task: Task


@dataclass(frozen=True)
class Consult:
    """Ask the environment something it may know: a method of ``Oracle`` or ``PlanAware``, or ``state_key``."""

    question: Literal["oracle_plan", "oracle_action", "subgoals", "subgoal_of", "step_status", "serves", "state_key"]
    arguments: tuple[tuple[Any, ...], ...] = ((),)  # one call per entry; answered with a list


@dataclass(frozen=True)
class PlanReady:
    """Event: a plan (or none, or *keep*) is about to take effect."""

    record: PlanRecord
    episode: Episode


@dataclass(frozen=True)
class Acted:
    """Event: a turn is over."""

    turn: Turn
    episode: Episode


Effect = Generate | Act | Reset | Consult | PlanReady | Acted
T = TypeVar("T")
Effects = Generator[Effect, Any, T]
"""A generator that asks its driver and finally returns a ``T``."""


def answered(conversation: Conversation, kind: Kind, turn: int) -> Effects[Any]:
    """Have the conversation continued and keep the answer in it; returns the ``Completion``, its text printable."""
    done = yield Generate(conversation)
    done = replace(done, text=printable(done.text), reasoning=printable(done.reasoning))
    conversation.answer(
        done.text, kind, turn, prompt_ids=done.prompt_ids, ids=done.ids, logprobs=done.logprobs, finish=done.finish,
        reasoning=done.reasoning, dropped=done.dropped,
    )  # fmt: skip
    return done
