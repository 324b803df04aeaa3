"""Targets: an endpoint that fails in every way a server can, on 127.0.0.1."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import hiplan.cli.app as cli
from attack.core import Target, chance
from attack.files import printed
from attack.mutate import damaged, encoded, hostile, json_files
from hiplan.errors import EndpointError, HiplanError
from hiplan.model import Decoding, Request
from hiplan.models.api import ApiModel, Endpoint, Reply
from hiplan.trace import Conversation

KEY = "sk-attack-0123456789abcdef"
BIG = 300 * 2**20  # bytes of a huge body
ANSWER = json.dumps(
    {"id": "1", "object": "chat.completion", "created": 0, "model": "m",
     "choices": [{"index": 0, "message": {"role": "assistant", "content": "1. win"}, "finish_reason": "stop"}],
     "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}}
)  # fmt: skip
ERROR = json.dumps({"error": {"message": "it broke", "type": "server_error", "code": "context_length_exceeded"}})
PAGE = "<html><head><title>502 Bad Gateway</title></head><body><h1>\x1b[31m502</h1></body></html>"
FIELDS = (
    "choices", "message", "content", "reasoning", "reasoning_content", "finish_reason", "usage", "prompt_tokens",
    "error", "length", "code", "tool_calls", "<think>", "</think>", "null",
)  # fmt: skip
TYPES = (
    "application/json", "text/html", "text/plain; charset=utf-16", "application/json; charset=nonsense", "", "\x80;;",
)  # fmt: skip
STATUSES = (
    200, 201, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 408, 409, 413, 418, 422, 429, 429, 500, 500, 503, 599,
)  # fmt: skip
TIMEOUT, RETRIES = 0.5, 1
TOLERANCE = 2.0  # seconds beyond what timeouts, tries and waits between them explain


class Server:
    """Listens on 127.0.0.1; the path of a request says to which input it belongs, and ``Answers`` what to answer."""

    def __init__(self) -> None:
        self.answers: list[Answers] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    def add(self, data: bytes) -> tuple[str, Answers]:
        """The address at which the server answers so, and the record of it."""
        self.answers.append(Answers(data))
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/{len(self.answers) - 1}/v1", self.answers[-1]

    def _accept(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(20)
            self.answers[read_request(connection)].give(connection)
        except OSError:  # the client has gone
            pass
        finally:
            connection.close()


def read_request(connection: socket.socket) -> int:
    """Read a whole request; returns the number in its path."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += (more := connection.recv(65_536))
        if not more:
            raise OSError("gone")
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    left = int(length[1]) - len(body) if length else 0
    while left > 0 and (more := connection.recv(65_536)):
        left -= len(more)
    return int(data.partition(b" /")[2].partition(b"/")[0])


@cache
def server() -> Server:
    return Server()


# -- what it answers --------------------------------------------------------------------------


def body_of(rng: Random) -> bytes:
    roll = rng.random()
    if roll < 0.45:
        return json_files(ANSWER, ERROR, own=FIELDS)(rng)
    if roll < 0.55:
        return damaged(rng, encoded(ANSWER))
    if roll < 0.65:
        return rng.choice((PAGE, PAGE[:20], ERROR, "null", "[]", '"text"', "{}", "")).encode()
    if roll < 0.75:
        return encoded(hostile(rng, FIELDS))
    if roll < 0.8:
        return encoded(f'{{"error": {{"message": "you sent Bearer {KEY} \x1b]0;x\x07"}}}}')
    return encoded(ANSWER)


def headers_of(rng: Random, body: bytes) -> list[str]:
    kind = rng.choice(("right", "right", "short", "long", "none", "bad", "chunked"))
    size = {"right": len(body), "short": len(body) // 2, "long": len(body) + 100, "bad": -1}.get(kind)
    headers = [f"Content-Type: {rng.choice(TYPES)}"]
    headers += [] if size is None else [f"Content-Length: {size}"]
    headers += ["Transfer-Encoding: chunked"] if kind == "chunked" else []
    return headers + rng.choices(ODD_HEADERS, k=rng.randint(0, 2))


def make_answers(rng: Random) -> bytes:
    """What the server answers, request by request (the last again and again): how, the head's size, head and body."""
    answers = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        how = rng.choices(HOW, WEIGHTS)[0]
        wrong = rng.choice(("body", "body", "headers", "status", "line", "nothing"))
        body = body_of(rng) if wrong == "body" else encoded(ANSWER)
        headers = ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        headers = headers_of(rng, body) if wrong == "headers" else headers
        if how == "bomb" or ("Content-Encoding: gzip" in headers and rng.random() < 0.5):
            body, headers = (bomb() if how == "bomb" else gzip.compress(body)), ["Content-Encoding: gzip"]
        status = rng.choice((429, 500)) if how == "storm" else rng.choice(STATUSES) if wrong == "status" else 200
        headers += [rng.choice(RETRY)] if status >= 400 and rng.random() < 0.7 else []
        odd_lines = ("HTTP/9.9 200", "HTTP/1.1 banana", "<html>", "")
        line = rng.choice(odd_lines) if wrong == "line" else f"HTTP/1.1 {status} X"
        head = "\r\n".join([line, *headers, "Connection: close", "", ""]).encode("latin-1", "replace")
        answers.append(how.encode() + b"\0" + str(len(head)).encode() + b"\0" + head + body)
    return NEXT.join(answers)


@cache
def bomb() -> bytes:
    """A huge body, small on the way."""
    return gzip.compress(bytes(BIG // 4), 1)


RETRY = ("retry-after-ms: 1", *(f"Retry-After: {when}" for when in ("0", "3600", "nan", "x")))
ODD_HEADERS = (
    *(f"Content-Encoding: {how}" for how in ("gzip", "gzip", "deflate", "br", "nonsense")),
    *(f"Location: {to}" for to in ("/v1/chat/completions", "file:///etc/passwd", "http://127.0.0.1:1/", "//", ":")),
    "X-A: " + "a" * 70_000, "no colon", "X\x00: 1", "Set-Cookie: a=" + "b" * 5_000, ": empty", *RETRY,
)  # fmt: skip
NEXT = b"\0\0answer\0\0"  # between the answers of one input
HOW = ("plain", "storm", "cut", "reset", "slow", "drip", "huge", "bomb", "silent")
WEIGHTS = (60, 8, 10, 5, 2, 0, 0, 0, 1)
# Not covered yet, hence the zeros: a body that drips in for longer than Endpoint.timeout, which bounds each read alone,
# and bodies of hundreds of megabytes, plain or compressed, whose size nothing bounds.


class Answers:
    """What the server answers to one input. ``swallowed``: whether the client took a huge body to its end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.requests, self.swallowed = data, 0, False

    def give(self, connection: socket.socket) -> None:
        answers = self.data.split(NEXT)
        how, size, raw = answers[min(self.requests, len(answers) - 1)].split(b"\0", 2)
        self.requests += 1
        head, body = raw[: int(size)], raw[int(size) :]
        if how == b"reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        elif how == b"silent":
            time.sleep(3 * TIMEOUT)
        elif how == b"slow":
            time.sleep(TIMEOUT * 0.8)
            connection.sendall(head + body)
        elif how == b"cut":
            connection.sendall((head + body)[: len(head + body) * 2 // 3])
        elif how == b"drip":  # a byte before each timeout, for far longer
            connection.sendall(HEAD.replace(b"Connection: close", b"Content-Length: 100"))
            for _ in range(60):
                connection.sendall(b" ")
                time.sleep(TIMEOUT / 4)
        elif how == b"huge":
            connection.sendall(HEAD)
            for _ in range(BIG // 65_536):
                connection.sendall(b" " * 65_536)
            self.swallowed = True
        else:
            connection.sendall(head + body)


@contextmanager
def fresh(data: bytes, **settings: Any) -> Iterator[tuple[Endpoint, Answers]]:
    """An endpoint on the server, and the record of what it was answered."""
    url, answers = server().add(data)
    with mock.patch.dict(os.environ, ATTACK_KEY=KEY):
        yield Endpoint(url, "m", "ATTACK_KEY", timeout=TIMEOUT, retries=RETRIES, **settings), answers


def attack_endpoint(data: bytes) -> None:
    """A reply or an ``EndpointError``: in time, with a message that is true, holds no key and is safe to print."""
    with fresh(data) as (endpoint, answers):
        began = time.perf_counter()
        try:
            replies = endpoint.ask([{"messages": [{"role": "user", "content": "hi"}], "seed": 1}])
            assert len(replies) == 1 and isinstance(replies[0], Reply)
            assert replies[0].prompt_tokens >= 0 and replies[0].completion_tokens >= 0, "tokens below zero"
        except EndpointError as error:
            check_message(error)
            told = re.search(r"tried (?:(once)|(\d+) times)", str(error))
            times = 0 if told is None else 1 if told[1] else int(told[2])
            assert not told or answers.requests == times, "it was not tried so often"
            raise
        finally:
            spent = time.perf_counter() - began
            most = (1 + RETRIES) * TIMEOUT + 1.5 * RETRIES + TOLERANCE
            assert not answers.swallowed, f"a body of {BIG >> 20} MB was taken"
            assert spent < most, f"an answer took more than {most:g} s at a timeout of {TIMEOUT:g} s"


def check_message(error: HiplanError) -> None:
    """The message holds no key, and nothing that controls a terminal once a command prints it."""
    assert KEY not in str(error), "the key is told"
    with mock.patch.object(cli, "app", side_effect=error):
        printed(lambda: cli.run(cli.app), [])


def attack_model(data: bytes) -> None:
    """Several requests at once, through the model that agents use, with a cache of answers."""
    rng, conversation = chance(data), Conversation("planner")
    conversation.ask("be brief", 0, author="system")
    conversation.ask("hi", 0)
    with (
        tempfile.TemporaryDirectory() as folder,
        fresh(data, cache=Path(folder), body={"top_p": None}) as (endpoint, _),
    ):
        asked = [Request(conversation, Decoding(0.0), seed) for seed in (rng.randrange(2**63), 1, 1)]
        first = ApiModel(endpoint).complete(asked)
        assert len(first) == 3 and ApiModel(endpoint).complete(asked) == first, "the cache answers otherwise"


def attack_cache(data: bytes) -> None:
    """An entry of the cache that was damaged is asked for again."""
    good = b"plain\0" + str(len(HEAD)).encode() + b"\0" + HEAD + encoded(ANSWER)
    body = {"messages": [{"role": "user", "content": "hi"}]}
    with tempfile.TemporaryDirectory() as folder, fresh(good, cache=Path(folder)) as (endpoint, _):
        (told,) = endpoint.ask([body])
        (entry,) = Path(folder).iterdir()
        entry.write_bytes(data)
        (again,) = endpoint.ask([body])
        assert isinstance(again, Reply) and (endpoint.usage.requests == 1 or again == told), "a broken entry was used"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
ENTRY = json.dumps({"url": "u", "body": {}, "reply": {"text": "1. win", "finish": "stop", "prompt_tokens": 1}})

PART = "\n--\n"  # between the texts of one input
URLS = (  # nothing listens at the first
    "http://127.0.0.1:9/v1", "http://localhost:8000/v1", "https://127.0.0.1", "http://[::1]:80/v1", "http://a:99999/v1",
    "ftp://a/v1", "http://", "//a", "http://ａ.invalid/v1", "http://user:pass@a/v1", "http://a/v1?key=1",
    "http://a b/v1", "http://a\r\nX: 1/v1", "http://a:x/v1",
)  # fmt: skip
VARIABLES = ("SSL_CERT_FILE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "OPENAI_API_KEY", "OPENAI_BASE_URL")
VALUES = ("/nonexist", "foo://x", "http://127.0.0.1:1", "socks5://x", "\udc80", "http://", "*", "a b", "é", "http://[")


def make_endpoint(rng: Random) -> str:
    """An address, a number of seconds, a key, and a variable with its value."""
    url = rng.choice((URLS[0], URLS[0], rng.choice(URLS), hostile(rng, URLS)))
    seconds = rng.choice(("1", "1", "1", "nan", "inf", "-1", "0", "1e308", "1e-9"))
    key = rng.choice((KEY, KEY, KEY, "", "a b", "é", "\x00", hostile(rng)))
    return PART.join((url, seconds, key, rng.choice(VARIABLES), rng.choice((*VALUES, hostile(rng)))))


def attack_settings(text: str) -> None:
    """Any address, timeout, key and environment variable: refused, or the request fails with an ``EndpointError``."""
    url, seconds, key, variable, value = text.split(PART)
    with mock.patch.dict(os.environ, {"ATTACK_KEY": held(key), variable: held(value)}):
        try:
            endpoint = Endpoint(url, "m", "ATTACK_KEY", timeout=float(seconds), retries=0)
            if url == URLS[0]:
                endpoint.ask([{"messages": [{"role": "user", "content": "hi"}]}])
        except HiplanError as error:
            assert KEY not in str(error), "the key is told"
            raise


def held(value: str) -> str:
    """The value as an environment can hold it."""
    return "".join(c for c in value if c != "\0" and (c < "\ud800" or c > "\udfff" or "\udc80" <= c <= "\udcff"))


TARGETS = (
    Target("endpoint, failing", make_answers, attack_endpoint, 2_000, 350.0),
    Target("endpoint, failing, as a model", make_answers, attack_model, 700, 400.0),
    Target("endpoint, cached answer", json_files(ENTRY, own=FIELDS), attack_cache, 1_500, 40.0),
    Target("endpoint, settings", make_endpoint, attack_settings, 3_000, 20.0),
)
