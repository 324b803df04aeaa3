"""Worker processes that try inputs, under a watch that sees what no alarm can: a hung call, a process that died."""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from attack.core import Finding, attempt
from attack.registry import BY_NAME

MEMORY = 4 * 2**30  # bytes of data a worker may hold
CHUNK = 2_000.0  # milliseconds of work, roughly, that a worker is given at once
Chunk = tuple[str, int, int]  # a target, and a range of inputs


@dataclass
class Tally:
    """What became of a target's inputs.

    ``slowest``: seconds and index. ``kinds``: findings of one kind, how many and the first.
    """

    inputs: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest: tuple[float, int] = (0.0, 0)
    kinds: dict[tuple[str, str], tuple[int, Finding]] = field(default_factory=dict)

    @property
    def bad(self) -> int:
        return sum(count for count, _ in self.kinds.values())

    @property
    def accepted(self) -> int:
        return self.inputs - self.refused - self.bad

    def find(self, finding: Finding, count: int = 1) -> None:
        known, first = self.kinds.get(finding.kind, (0, finding))
        self.kinds[finding.kind] = known + count, min(first, finding, key=lambda one: one.index)

    def add(self, other: Tally) -> None:
        self.inputs += other.inputs
        self.refused += other.refused
        self.seconds += other.seconds
        self.slowest = max(self.slowest, other.slowest)
        for count, finding in other.kinds.values():
            self.find(finding, count)


def chunks(counts: dict[str, int]) -> list[Chunk]:
    """The inputs in ranges of about equal work."""
    cut: list[Chunk] = []
    for name, count in counts.items():
        size = max(1, int(CHUNK / BY_NAME[name].ms))
        cut += [(name, start, min(count, start + size)) for start in range(0, count, size)]
    return cut


def work(connection: Connection, state: Any, seed: int, limit: float, place: str) -> None:
    """Try what comes through the connection; ``state`` tells which input is tried, and since when."""
    tempfile.tempdir = place
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        name, start, stop = connection.recv()
        tally = Tally(inputs=stop - start)
        for index in range(start, stop):
            state[0], state[1] = index, time.monotonic()
            outcome = attempt(BY_NAME[name], seed, index, limit)
            tally.refused += outcome.refused
            tally.seconds += outcome.seconds
            tally.slowest = max(tally.slowest, (outcome.seconds, index))
            if outcome.finding:
                tally.find(outcome.finding)
        connection.send(tally)


class Worker:
    """A process, and what it is doing."""

    def __init__(self, seed: int, limit: float, place: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        self.connection, other = context.Pipe()
        self.state = context.Array("d", [0.0, 0.0], lock=False)
        self.process = context.Process(target=work, args=(other, self.state, seed, limit, str(place)), daemon=True)
        self.process.start()
        other.close()
        self.chunk: Chunk | None = None

    def give(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.state[0], self.state[1] = chunk[1], time.monotonic() + 60  # it may have to import first
        self.connection.send(chunk)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def attack_all(
    queue: Iterable[Chunk], seed: int, parallel: int, limit: float, place: Path, on_done: Callable[[str, Tally], None]
) -> None:
    """Try all chunks; an input that hangs or kills its process is a finding.

    ``on_done`` is told of each chunk or part of one: the target, and what became of the inputs.
    """
    waiting = list(reversed(list(queue)))
    idle = [Worker(seed, limit, place) for _ in range(parallel)]
    busy: list[Worker] = []
    try:
        while waiting or busy:
            while waiting and idle:
                busy.append(worker := idle.pop())
                worker.give(waiting.pop())
            ready = wait([worker.connection for worker in busy], timeout=0.2)
            for worker in list(busy):
                assert worker.chunk is not None
                name, start, stop = worker.chunk
                fault = ""
                if worker.connection in ready:
                    try:
                        tally = worker.connection.recv()
                    except (EOFError, OSError):
                        worker.process.join()
                        fault = f"the process died (exit code {worker.process.exitcode})"
                elif time.monotonic() - worker.state[1] > 2 * limit:
                    fault = f"took more than {limit:g} seconds in one call"
                else:
                    continue
                busy.remove(worker)
                if fault:  # the others of the chunk are tried again by another process
                    index = int(worker.state[0])
                    waiting += [(name, a, b) for a, b in ((start, index), (index + 1, stop)) if a < b]
                    tally = Tally(inputs=1)
                    tally.find(Finding(name, index, "process", fault))
                    worker.end()
                    worker = Worker(seed, limit, place)
                idle.append(worker)
                on_done(name, tally)
    finally:
        for worker in (*busy, *idle):
            worker.end()
