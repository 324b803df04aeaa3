"""What a target is, and how one input is tried on it."""

from __future__ import annotations

import re
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any
from zlib import crc32

from hiplan.errors import HiplanError, InternalError

LIMIT = 5.0  # seconds for one input
PACKAGES = re.compile(r"\b(hiplan|experiments)/[\w/]+\.py$")
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class Target:
    """Something of hiplan that takes input from outside.

    ``make``: an input (bytes or text) from a seeded generator. ``attack`` must return, or raise a ``HiplanError`` other
    than ``InternalError``, within ``LIMIT``; ``allowed``: what else the interface documents. ``share``: inputs of
    a million. ``ms``: what one takes, roughly.
    """

    name: str
    make: Callable[[Random], Any]
    attack: Callable[[Any], None]
    share: int
    ms: float = 1.0
    allowed: tuple[type[Exception], ...] = ()


@dataclass(frozen=True)
class Finding:
    """An input that broke the promise: where (the innermost line of hiplan's or of the check), and what was raised."""

    target: str
    index: int
    place: str
    message: str

    @property
    def kind(self) -> tuple[str, str]:
        """Equal for findings that probably have one cause."""
        return self.place, ":".join(self.message.split(":")[: 2 if self.message.startswith("AssertionError") else 1])


@dataclass(frozen=True)
class Outcome:
    """What an input led to."""

    refused: bool
    seconds: float
    finding: Finding | None = None


class Overdue(BaseException):
    """The time for an input is over. No ``Exception``, so that no handler takes it for an engine's."""


def on_alarm(number: int, frame: FrameType | None) -> None:
    raise Overdue


def input_of(target: Target, seed: int, index: int) -> Any:
    """The input that these numbers name, in any process."""
    return target.make(Random(f"{seed}/{target.name}/{index}"))


def attempt(target: Target, seed: int, index: int, limit: float = LIMIT) -> Outcome:
    """Try one input. Must run in the main thread: the alarm is a signal."""
    data = input_of(target, seed, index)
    began, fault, refused = time.perf_counter(), None, False
    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            target.attack(data)
        except InternalError as error:
            fault = error
        except (HiplanError, *target.allowed):
            refused = True
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (Overdue, Exception) as error:
        fault = error
    finally:
        signal.signal(signal.SIGALRM, before)
    seconds = time.perf_counter() - began
    if fault is None and seconds > 1.2 * limit:  # in a call that the alarm did not interrupt, or that swallowed it
        fault = Overdue()
    return Outcome(refused, seconds, Finding(target.name, index, *described(fault)) if fault else None)


def described(error: BaseException) -> tuple[str, str]:
    """Where it was raised, and what it says, in one printable line."""
    frames = list(traceback.extract_tb(error.__traceback__)) or [traceback.FrameSummary(__file__, 0, "attempt")]
    if not isinstance(error, AssertionError):
        frames = [f for f in frames if PACKAGES.search(f.filename)] or frames
    named = PACKAGES.search(frames[-1].filename)
    place = f"{named[0] if named else Path(frames[-1].filename).name}:{frames[-1].name}"
    if isinstance(error, Overdue):
        return place, "took too long"
    said = ascii(" ".join(str(error).split())[:160])[1:-1]
    return place, f"{type(error).__name__}: {said}"


def every(*calls: Callable[[], object]) -> None:
    """Make all calls; that one refuses the input does not spare the others."""
    refusals: list[HiplanError] = []
    for call in calls:
        try:
            call()
        except InternalError:
            raise
        except HiplanError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]


def chance(data: str | bytes) -> Random:
    """A generator that depends on the input alone: an attack that needs choices stays a pure function."""
    return Random(crc32(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")))


def check_terminal(text: str) -> None:
    """No control character, bidirectional mark or lone surrogate is in what goes to a terminal."""
    if found := CONTROLS.search(text):
        around = text[max(0, found.start() - 20) : found.end() + 20]
        raise AssertionError(f"a control character reaches the terminal: {found[0]!r} in {around!r}")
