"""Targets that break every promise: with them the tests see that the runner notices."""

from __future__ import annotations

import os
import time
from random import Random

from attack.core import Target
from hiplan.errors import ConfigError


def number(rng: Random) -> bytes:
    return rng.randbytes(4)


def sleeps(data: bytes) -> None:
    if data[0] < 60:
        time.sleep(60)


def hangs(data: bytes) -> None:
    """In one call that no signal interrupts."""
    if data[0] < 60:
        sum(range(10**12))


def dies(data: bytes) -> None:
    if data[0] < 60:
        os.abort()


def raises(data: bytes) -> None:
    if data[0] < 60:
        raise KeyError("raw")
    if data[0] < 120:
        raise ConfigError("refused")


TARGETS = tuple(Target(attack.__name__, number, attack, 1, 100.0) for attack in (sleeps, hangs, dies, raises))
