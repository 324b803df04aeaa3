"""Models behind an OpenAI-compatible endpoint (llama.cpp, vLLM, Ollama, hosted ones); needs no torch.

``Endpoint`` asks: within a limit of requests at once, with retries, a cache on disk and a count of what it cost.
``ApiModel`` is a ``Model`` on top of it, for an ``Agent``, a rollout or a judge.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from hiplan.errors import ConfigError, EndpointError
from hiplan.model import Completion, Model, Request
from hiplan.prompts import FULL, Prompts
from hiplan.text import clean
from hiplan.trace import Conversation

if TYPE_CHECKING:
    from openai import APIConnectionError, APIStatusError, OpenAI

_TOO_LONG = re.compile(r"context[ _-]?(length|window|size)|prompt is too long", re.IGNORECASE)
_NO_KEY = "none"  # openai wants some text
_SETTINGS = "the environment variables HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSLKEYLOGFILE"
_SEEDS = 2**31  # what every server takes; llama.cpp reads the largest of 32 bits as "any"


class Reply(BaseModel):
    """What an endpoint answered; tokens as it counted them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    reasoning: str = ""
    finish: Literal["stop", "length", "window"] = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Usage:
    """Requests that the endpoint answered, those answered from the cache, and the tokens of the former."""

    requests: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(eq=False)
class Endpoint:
    """Chat completions of one model at one address; ``usage`` is what has been asked through this object so far.

    ``url``: up to and with the version, as in ``http://localhost:8000/v1``. ``key_env``: the environment variable that
    holds the key; without one none is sent. ``concurrency``: requests at once. ``retries``: of a request that met a
    full or failing server, with growing waits. ``timeout``: seconds for one answer. ``cache``: a folder with one JSON
    file per answer. ``prices``: of a million prompt tokens and a million completion tokens. ``body``: fields added to
    every request; ``None`` takes a field out, as in ``{"max_tokens": None, "max_completion_tokens": 4096}``.

    Raises ``ConfigError`` for an address or a key that cannot be used, and where ``hiplan[api]`` is not installed.
    """

    url: str
    model: str
    key_env: str | None = None
    concurrency: int = 8
    retries: int = 4
    timeout: float = 120.0
    cache: Path | None = None
    prices: tuple[float, float] | None = None
    body: Mapping[str, JsonValue] = field(default_factory=dict)
    usage: Usage = field(init=False)

    def __post_init__(self) -> None:
        if "@" in self.url or "?" in self.url:  # not shown: it may be a secret
            raise ConfigError(
                f"the address of the endpoint of {self.model!r} holds a password or a query, which would be written to "
                "files; put the key into an environment variable and give key_env its name"
            )
        if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", self.url):
            raise ConfigError(f"an endpoint's address looks like 'http://localhost:8000/v1', got {self.url!r}")
        try:
            parts = urlsplit(self.url)
            (parts.hostname or "").encode("idna")
            known = parts.port is None or parts.port > 0
        except (ValueError, UnicodeError):
            known = False
        if not known:
            raise ConfigError(f"the endpoint's address {self.url!r} has no such host or port; check it")
        if self.concurrency < 1 or self.retries < 0 or not 0 < self.timeout < math.inf:
            raise ConfigError(
                "an endpoint takes a concurrency of at least 1, retries of at least 0 and "
                f"a timeout in seconds above 0, got {self.concurrency}, {self.retries} and {self.timeout}"
            )
        self.usage = Usage()
        self._client = self._connect()
        self._pool = ThreadPoolExecutor(self.concurrency, "endpoint")  # one for all callers: they share the limit
        self._lock = threading.Lock()

    @property
    def cost(self) -> float | None:
        """What that cost, in the currency of the prices; ``None`` where there are none."""
        if self.prices is None:
            return None
        return (self.usage.prompt_tokens * self.prices[0] + self.usage.completion_tokens * self.prices[1]) / 1e6

    def ask(self, bodies: Sequence[Mapping[str, JsonValue]]) -> list[Reply]:
        """One reply per request body (``messages``, ``temperature`` ...), asked at once; with a cache, equal ones once.

        A conversation that does not fit the model's window is answered with the finish ``window``. Raises
        ``EndpointError`` for the first request that cannot be answered; what was answered is in the cache.
        """
        futures: dict[str, Future[Reply]] = {}
        names = [json.dumps(body, sort_keys=True) if self.cache else str(i) for i, body in enumerate(bodies)]
        for name, body in zip(names, bodies, strict=True):
            if name not in futures:
                futures[name] = self._pool.submit(self._ask, body)
        try:
            replies = [futures[name].result() for name in names]
        finally:  # an error, or a person interrupts
            for future in futures.values():
                future.cancel()
        self._count(cached=len(names) - len(futures))
        return replies

    def _ask(self, given: Mapping[str, JsonValue]) -> Reply:
        whole = {"model": self.model, **given, **self.body}
        body = {name: value for name, value in whole.items() if value is not None}
        identity = json.dumps({"url": self.url, "body": body, "seed": given.get("seed")}, sort_keys=True)
        entry = self.cache and self.cache / f"{hashlib.sha256(identity.encode()).hexdigest()}.json"
        if entry and (known := _read_entry(entry)):
            self._count(cached=1)
            return known
        reply = self._send(body)
        self._count(1, 0, reply.prompt_tokens, reply.completion_tokens)
        if entry:
            asked = {"url": self.url, "body": body, "reply": reply.model_dump(mode="json")}
            _replace(entry, json.dumps(asked, indent=1, sort_keys=True) + "\n")
        return reply

    def _send(self, body: dict[str, Any]) -> Reply:
        import openai

        try:
            raw = self._client.chat.completions.with_raw_response.create(
                model=body["model"], messages=body["messages"], extra_body=body
            )
            return _read_answer(raw.http_response.text)
        except ValidationError as error:
            why = f"gave an answer that is no chat completion ({error.errors()[0]['msg']}); check the address"
        except openai.APITimeoutError as error:
            why = f"gave no answer in {self.timeout:g} seconds, {_tries(error)}; give it more time or fewer requests"
        except openai.APIConnectionError as error:
            why = f"cannot be reached, {_tries(error)}; is the server running, and the address right?"
        except openai.APIStatusError as error:
            said = self._said(error)
            if error.status_code in (400, 413, 422) and _TOO_LONG.search(f"{error.code} {said}"):
                return Reply(text="", finish="window")
            why = f"answered {error.status_code} to a request{self._cure(error)}: {said}"
        except openai.APIError as error:
            why = f"failed: {self._said(error)}"
        except Exception as error:  # the HTTP client's own: a text it cannot encode, an answer it cannot decode
            why = f"cannot be asked: {type(error).__name__}: {self._said(error)}"
        raise EndpointError(f"the endpoint {self.url!r} (model {self.model!r}) {why}")

    def _cure(self, error: APIStatusError) -> str:
        status = error.status_code
        if status in (401, 403):
            held = f"the key in {self.key_env}" if self.key_env else "key_env, which names no variable with a key"
            return f" (check {held})"
        if status == 404:
            return " (check the address, which often ends in /v1, and the model's name)"
        return f" ({_tries(error)}; wait, or lower the concurrency)" if status == 429 or status >= 500 else ""

    def _said(self, error: Exception) -> str:
        """The server's or the client's own words, short and without the key."""
        return _discreet(str(error), self._client.api_key)

    def _connect(self) -> OpenAI:
        try:
            from openai import OpenAI
        except ImportError:
            raise ConfigError("an endpoint needs openai; install it with pip install 'hiplan[api]'") from None
        key = os.environ.get(self.key_env, "").strip() if self.key_env else _NO_KEY
        if not key:
            raise ConfigError(f"the environment variable {self.key_env!r} is empty; put the key of {self.url!r} there")
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ConfigError(f"what the environment variable {self.key_env!r} holds is no key: it has odd characters")
        try:
            return OpenAI(base_url=self.url, api_key=key, timeout=self.timeout, max_retries=self.retries)
        except Exception as error:  # a proxy or a certificate that the environment names and that cannot be used
            why = f"{type(error).__name__}: {_discreet(str(error), key)}"
        raise ConfigError(f"no client for the endpoint {self.url!r} can be made ({why}); check {_SETTINGS}")

    def _count(self, requests: int = 0, cached: int = 0, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        with self._lock:
            now = self.usage
            self.usage = Usage(
                now.requests + requests,
                now.cached + cached,
                now.prompt_tokens + prompt_tokens,
                now.completion_tokens + completion_tokens,
            )


class ApiModel(Model):
    """A ``Model`` behind an endpoint: ``Agent(ApiModel(Endpoint("http://localhost:8000/v1", "my-model")))``.

    ``prompts``: what the roles are told. ``system_turn``: False for families without one; the system's words then stand
    before the task. ``decoding``'s temperature and token limits and the request's seed are passed on (31 bits of it).
    What a thinking model thought is ``Completion.reasoning`` and is not sent back in later turns.
    """

    def __init__(self, endpoint: Endpoint, prompts: Prompts = FULL, system_turn: bool = True) -> None:
        self.endpoint, self.prompts, self.system_turn = endpoint, prompts, system_turn

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, asked concurrently. Raises ``EndpointError``."""
        replies = self.endpoint.ask([self._body(request) for request in requests])
        return [Completion(r.text, finish=r.finish, reasoning=r.reasoning) for r in replies]

    def _body(self, request: Request) -> dict[str, JsonValue]:
        return {
            "messages": [dict(m) for m in chat_messages(request.conversation, self.system_turn)],
            "temperature": request.decoding.temperature,
            "max_tokens": request.decoding.limit(request.role),
            "seed": request.seed % _SEEDS,
        }


def chat_messages(conversation: Conversation, system_turn: bool = True) -> list[dict[str, str]]:
    """A conversation as chat messages; what one author says in a row is one message, as templates need."""
    messages: list[dict[str, str]] = []
    for segment in conversation.segments:
        role = "user" if segment.author == "system" and not system_turn else segment.author
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n\n{segment.text}"
        else:
            messages.append({"role": role, "content": segment.text})
    return messages


class _Message(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None  # what newer vLLM calls it


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Tokens(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Answer(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Tokens | None = None


def _discreet(text: str, key: str) -> str:
    """A foreign message in one short line, without the key and without the password of a proxy's address."""
    said = clean(" ".join(text.split()))
    said = said if key == _NO_KEY else said.replace(key, "***")
    return re.sub(r"//[^/@\s]*@", "//***@", said)[:300]


def _read_answer(text: str) -> Reply:
    """Raises pydantic's ``ValidationError`` for what is no chat completion."""
    answer = _Answer.model_validate_json(text)
    choice, used = answer.choices[0], answer.usage or _Tokens()
    said, reasoning = _apart(choice.message.content or "")
    return Reply(
        text=said,
        reasoning=choice.message.reasoning_content or choice.message.reasoning or reasoning,
        finish="length" if choice.finish_reason == "length" else "stop",
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
    )


def _apart(text: str) -> tuple[str, str]:
    """What is said and what was thought, where a server leaves both in one; a thought without an end is all thought."""
    thought, closed, said = text.rpartition("</think>")
    if closed:
        return said.lstrip("\n"), thought.strip().removeprefix("<think>").strip()
    opened = text.lstrip().startswith("<think>")
    return ("", text.strip().removeprefix("<think>").strip()) if opened else (text, "")


def _tries(error: APIStatusError | APIConnectionError) -> str:
    """How often the last request was sent; the client may give up early, as where a server asks for an hour's wait."""
    retries = int(error.request.headers.get("x-stainless-retry-count", 0))
    return f"tried {1 + retries} times" if retries else "tried once"


def _read_entry(path: Path) -> Reply | None:
    """A cached reply; ``None`` for a file that is missing or broken."""
    try:
        return Reply.model_validate(json.loads(path.read_text(encoding="utf-8"))["reply"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _replace(path: Path, text: str) -> None:
    """Write a file in one step; several processes may write the same one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".tmp", delete=False) as beside:
            beside.write(text)
        os.replace(beside.name, path)
    except OSError as error:
        raise ConfigError(f"the cache folder {str(path.parent)!r} cannot be written to: {error.strerror}") from None
