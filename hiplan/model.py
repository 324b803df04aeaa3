"""The model protocol, which maps requests to completions, and ``ScriptedModel``, an implementation for tests.

A model answers a batch of requests in one call. Each request is a conversation that ends in a prompt; the model must
not change it. Each request has its own seed, so a completion does not depend on the other requests in the batch, up to
rounding.
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
    """How to sample. Temperature 0 is greedy; ``plan_tokens`` and ``action_tokens`` limit one answer of each role."""

    temperature: float = 1.0
    plan_tokens: int = 512
    action_tokens: int = 256

    def limit(self, role: Role) -> int:
        """The token limit of one answer by ``role``."""
        return self.plan_tokens if role == "planner" else self.action_tokens

    def at(self, temperature: float | None) -> Decoding:
        """A copy with another temperature; unchanged if ``None``."""
        return self if temperature is None else replace(self, temperature=temperature)


@dataclass(frozen=True)
class Request:
    """A request for the next answer in ``conversation``, by its role."""

    conversation: Conversation
    decoding: Decoding
    seed: int = 0

    @property
    def role(self) -> Role:
        return self.conversation.role


Finish = Literal["stop", "length", "window"]


@dataclass(frozen=True)
class Completion:
    """One sampled answer of a role.

    ``ids`` and ``logprobs`` (nats, same length) are the sampled tokens including the end token. ``prompt_ids`` are the
    tokens of the prompts since the last answer. All three are empty for models that exchange text. ``finish``:
    ``stop``, ``length`` (cut at the token limit), or ``window`` (the context window is full). ``reasoning``: what a
    reasoning model wrote before ``text``. ``dropped``: how many of the first ``ids`` later turns do not see.
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
    """Answers batches of requests.

    ``prompts``: the texts given to the roles, and the parsers of their answers. A derived class inherits prompts for
    general instruction models and a ``release`` that does nothing.
    """

    prompts: Prompts = FULL

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order. All requests of one call have the same role."""
        ...

    def release(self) -> None:
        """Free cached state; a conversation that continues afterwards is processed again from its start."""
        return None


class _Answer(BaseModel):
    """The attributes that ``complete`` requires of a completion, whatever its class."""

    text: StrictStr
    ids: Sequence[StrictInt]
    logprobs: Sequence[StrictFloat]
    prompt_ids: Sequence[StrictInt]
    finish: Finish
    reasoning: StrictStr
    dropped: StrictInt


def complete(model: Model, requests: Sequence[Request]) -> list[Completion]:
    """The model's completions, one per request. Raises ``UserError`` if the model returns anything else.

    Exceptions of the model are not caught, except ``StopIteration``, which becomes a ``UserError``: in a generator it
    would end the episode silently.
    """
    call, n = f"{type(model).__name__}.complete", len(requests)
    try:
        found = model.complete(requests)
    except StopIteration as error:
        raise UserError(f"{call} raised {shown(error)}; raise an exception of another class") from error
    expected = f"expected a list of {n} hiplan.Completion, one per request"
    if not isinstance(found, list | tuple) or len(found) != n:
        got = f"a list of {len(found)}" if isinstance(found, list | tuple) else shown(found, 80)
        raise UserError(f"{call} returned {got}; {expected}")
    for one in found:
        try:
            _Answer.model_validate(one, from_attributes=True)
        except ValidationError as error:
            raise UserError(f"{call} returned {shown(one, 80)} ({problem(error)}); {expected}") from None
    return list(found)


class ScriptedModel(Model):
    """A model for tests and examples: it returns given texts, one per request, or calls a function of the conversation.

    Raises ``UserError`` if a request comes after the last text.
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
                    f"the script has no text left for the {conversation.role}'s prompt {asked[-80:]!r}; "
                    "give ScriptedModel one text per request, or a function of the conversation"
                )

            self._say = say

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        return [Completion(self._say(request.conversation)) for request in requests]


def derive_seed(*parts: object) -> int:
    """A 63-bit seed computed from the text of ``parts``; all seeds in hiplan come from it."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
