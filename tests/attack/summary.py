"""What an attack found, for the terminal and for docs/attack.md."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from attack.kills import Killed
from attack.pool import Tally

MARKS = ("<!-- figures -->", "<!-- end of figures -->")
HEAD = ("target", "inputs", "accepted", "refused", "findings", "ms each", "slowest")
Tallies = Mapping[str, Tally]


def rows(tallies: Tallies) -> Iterator[tuple[str, ...]]:
    """A target's line: its name and its figures."""
    for name, tally in tallies.items():
        seconds, index = tally.slowest
        counts = (f"{n:,}" for n in (tally.inputs, tally.accepted, tally.refused, tally.bad))
        yield name, *counts, f"{1000 * tally.seconds / max(1, tally.inputs):.1f}", f"{seconds:.2f} s (#{index})"


def table(tallies: Tallies) -> Table:
    shown = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0))
    for name in HEAD:
        shown.add_column(name, justify="left" if name == "target" else "right", no_wrap=True)
    for row in rows(tallies):
        shown.add_row(*(Text(cell, "bold red" if i == 4 and cell != "0" else "") for i, cell in enumerate(row)))
    return shown


def complaints(tallies: Tallies, seed: int) -> Iterator[str]:
    """Every kind of finding: how often, where, what was raised, and how to see it again."""
    for name, tally in tallies.items():
        for count, finding in tally.kinds.values():
            yield f"{name}: {count:,} x {finding.place}  {finding.message}"
            yield f"    python tests/attack/run.py --target {shlex.quote(name)} --seed {seed} --index {finding.index}"


def bad(tallies: Tallies, killed: Sequence[Killed]) -> int:
    return sum(tally.bad for tally in tallies.values()) + sum(len(one.problems) for one in killed)


def of_kills(one: Killed) -> str:
    told = "; ".join(one.problems) or f"the {one.files} files of every run were those of an undisturbed one"
    return f"{one.subject}: kills {one.kills}, runs {one.runs}; {told}"


def around(path: Path) -> tuple[str, str]:
    """The file's text up to its first mark and from its second. Raises ``ValueError`` where it has no such marks."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, first, rest = text.partition(MARKS[0])
    _, last, after = rest.partition(MARKS[1])
    if not (first and last):
        raise ValueError(f"{str(path)!r} has no lines {MARKS[0]!r} and {MARKS[1]!r} to put the figures between")
    return before + first, last + after


def write_report(
    path: Path, command: Sequence[str], tallies: Tallies, killed: Sequence[Killed], seconds: float
) -> None:
    """Put the figures between the file's marks."""
    before, after = around(path)
    inputs, kills = sum(tally.inputs for tally in tallies.values()), sum(one.kills for one in killed)
    lines = [
        f"`{shlex.join(command)}`: {inputs:,} inputs and {kills} kills in {seconds / 60:.0f} min on {hardware()}; "
        f"{bad(tallies, killed):,} findings.",
        "",
        f"| {' | '.join(HEAD)} |",
        f"| --- |{' ---: |' * (len(HEAD) - 1)}",
        *(f"| {' | '.join(row)} |" for row in rows(tallies)),
        "",
        *(f"- {of_kills(one)}" for one in killed),
    ]
    figures = "\n".join(lines).rstrip()
    path.write_text(f"{before}\n\n{figures}\n\n{after}", encoding="utf-8")


def hardware() -> str:
    """Cores, processor and Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{os.cpu_count()} cores ({model or platform.machine()}), Python {platform.python_version()}"
