"""The model protocol: requests in, completions out; and ``ScriptedModel``, a double for tests.

A model answers a batch of requests at once. Each request is a conversation that ends in a prompt;
the model must not change it. Sampling is seeded per request, so a completion does not depend on
which other requests happened to be in the batch (up to rounding).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

from pydantic import BaseModel, StrictFloat, StrictInt, StrictStr, ValidationError

from hiplan.errors import UserError
from hiplan.files import problem
from hiplan.prompts import FULL, Prompts
from hiplan.text import shown
from hiplan.trace import Conversation, Role


@dataclass(frozen=True)
class Decoding:
    """How to sample. ``temperature`` 0 is greedy. ``plan_tokens`` and ``action_tokens`` bound one answer."""

    temperature: float = 1.0
    plan_tokens: int = 512
    action_tokens: int = 256

    def limit(self, role: Role) -> int:
        """The most tokens of one answer by that role."""
        return self.plan_tokens if role == "planner" else self.action_tokens

    def at(self, temperature: float | None) -> Decoding:
        """The same limits at another temperature; unchanged for ``None``."""
        return self if temperature is None else replace(self, temperature=temperature)


@dataclass(frozen=True)
class Request:
    """Continue ``conversation`` as its role."""

    conversation: Conversation
    decoding: Decoding
    seed: int = 0

    @property
    def role(self) -> Role:
        return self.conversation.role


Finish = Literal["stop", "length", "window"]


@dataclass(frozen=True)
class Completion:
    """What a role wrote.

    ``ids`` and ``logprobs`` (same length) are exactly what was sampled, end token included;
    ``prompt_ids`` are the tokens of the prompts since the last answer. All three are empty for
    models that exchange text. ``finish``: ``stop``, ``length`` (answer cut), or ``window`` (no room left).
    ``reasoning``: what a thinking model wrote before ``text``; ``dropped``: how many of ``ids`` later turns do not see.
    """

    text: str
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    prompt_ids: tuple[int, ...] = ()
    finish: Finish = "stop"
    reasoning: str = ""
    dropped: int = 0


@runtime_checkable
class Model(Protocol):
    """Anything that can answer a batch of requests, in order.

    ``prompts``: what the roles are told, and how their texts are read. A class that derives from it has prompts for
    general instruction models and nothing to release.
    """

    prompts: Prompts = FULL

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request. All requests of one call have the same role."""
        ...

    def release(self) -> None:
        """Free what is kept of conversations that have ended; one that continues is processed again."""
        return None


class _Answer(BaseModel):
    """What a completion must hold, whoever made it."""

    text: StrictStr
    ids: Sequence[StrictInt]
    logprobs: Sequence[StrictFloat]
    prompt_ids: Sequence[StrictInt]
    finish: Finish
    reasoning: StrictStr
    dropped: StrictInt


def complete(model: Model, requests: Sequence[Request]) -> list[Completion]:
    """The model's answers. Raises ``UserError`` for what are no completions; what else the model raises goes through.

    A ``StopIteration`` becomes a ``UserError``, too: it would end a generator that plays an episode without a word.
    """
    call, n = f"{type(model).__name__}.complete", len(requests)
    try:
        found = model.complete(requests)
    except StopIteration as error:
        raise UserError(f"{call} raised {shown(error)}; let it raise another exception, which is not lost") from error
    if not isinstance(found, list | tuple) or len(found) != n:
        got = f"{len(found)} of them" if isinstance(found, list | tuple) else shown(found, 80)
        raise UserError(f"{call} should give {n} completions with text, it gave {got}")
    for one in found:
        try:
            _Answer.model_validate(one, from_attributes=True)
        except ValidationError as error:
            what = f"it gave {shown(one, 80)} ({problem(error)})"
            raise UserError(f"{call} should give {n} completions with text, {what}") from None
    return list(found)


class ScriptedModel(Model):
    """A model that says what a script says: a list of texts, or a function of the conversation.

    A real implementation of the protocol for tests, examples and demonstrations. Raises ``UserError`` when a
    list is used up.
    """

    def __init__(self, script: Iterable[str] | Callable[[Conversation], str], prompts: Prompts = FULL) -> None:
        self.prompts = prompts
        self._say: Callable[[Conversation], str]
        if callable(script):
            self._say = script
        else:
            lines = iter(script)

            def say(conversation: Conversation) -> str:
                for line in lines:
                    return line
                asked = conversation.segments[-1].text
                raise UserError(
                    f"the script has no text left for the {conversation.role}, who was asked {asked[-80:]!r}; "
                    "give ScriptedModel one text per request, or a function of the conversation"
                )

            self._say = say

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        return [Completion(self._say(request.conversation)) for request in requests]


def derive_seed(*parts: object) -> int:
    """A 63-bit seed that depends on the parts' text alone; the only source of randomness in hiplan."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
