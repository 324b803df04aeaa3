"""Attack hiplan with hostile inputs and kills, and say what broke. Exit code 1 on any finding.

python tests/attack/run.py --inputs 1000000 --kills 100          # what `make attack` does
python tests/attack/run.py --target "plan file" --index 17       # one input again, with its traceback
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from attack.kills import Killed
    from attack.pool import Tally

TESTS = Path(__file__).resolve().parents[1]
SETTINGS = {  # of this process and its workers, before they import torch and transformers
    "PYTHONPATH": os.pathsep.join((str(TESTS), str(TESTS.parent))),
    "PYTHONWARNINGS": "ignore",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # for small files that are flushed again and again
COLUMNS = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left"),
           TimeRemainingColumn())  # fmt: skip


def main(given: Sequence[str]) -> int:
    sys.path[:1] = [str(TESTS), str(TESTS.parent)]  # instead of this folder
    os.environ.update(SETTINGS)
    chosen = options(given)
    from attack import registry, summary

    if chosen.index is not None:
        return again(chosen.target[0], chosen.seed, chosen.index)
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    targets = [registry.BY_NAME[name] for name in chosen.target or [target.name for target in registry.TARGETS]]
    counts = registry.split(targets, chosen.inputs) if chosen.inputs else {}
    minutes = sum(registry.BY_NAME[name].ms * n for name, n in counts.items()) / chosen.parallel / 60_000
    total = f"{sum(counts.values()):,} inputs for {len(counts)} targets in about {minutes:.0f} min"
    console.print(f"{total}, and {chosen.kills} kills:")
    console.print("; ".join(f"{name} {n:,}" for name, n in counts.items()), style="dim", highlight=False)
    began = time.monotonic()
    tallies, killed = attack(counts, chosen.kills, chosen.seed, chosen.parallel, console)
    seconds, bad = time.monotonic() - began, summary.bad(tallies, killed)
    console.print(summary.table(tallies))
    for line in (*summary.complaints(tallies, chosen.seed), *map(summary.of_kills, killed)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{bad:,} findings in {seconds / 60:.1f} min", style="bold red" if bad else "bold")
    if chosen.report:
        command = ("python", "tests/attack/run.py", *given)
        summary.write_report(chosen.report, command, tallies, killed, seconds)
    return 1 if bad else 0


def options(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, help="inputs over all targets (default: 20000)")
    parser.add_argument("--kills", type=int, default=0, help="kills of training runs (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="seed of inputs and moments (default: 0)")
    parser.add_argument("--parallel", type=int, default=2, help="processes at once (default: 2)")
    parser.add_argument("--target", action="append", help="only this target; may be repeated")
    parser.add_argument("--index", type=int, help="with one --target: only this input, in this process")
    parser.add_argument("--report", type=Path, help="a Markdown file whose figures are replaced")
    chosen = parser.parse_args(given)
    if chosen.inputs < 0 or chosen.kills < 0 or chosen.parallel < 1:
        parser.error("--inputs and --kills take numbers from 0, --parallel from 1")
    if chosen.report:
        from attack.summary import around

        try:
            around(chosen.report)
        except ValueError as error:
            parser.error(str(error))
    if chosen.index is not None and len(chosen.target or ()) != 1:
        parser.error("--index goes with one --target")
    if chosen.target:
        from attack.registry import BY_NAME, TARGETS

        if unknown := [name for name in chosen.target if name not in BY_NAME]:
            known = ", ".join(target.name for target in TARGETS)
            parser.error(f"unknown target {unknown[0]!r}; expected one of: {known}")
    return chosen


def attack(
    counts: dict[str, int], kills: int, seed: int, parallel: int, console: Console
) -> tuple[dict[str, Tally], list[Killed]]:
    """Try so many inputs of each target, then kill so often; what became of them."""
    from attack.core import LIMIT
    from attack.kills import kill_runs, split_kills
    from attack.pool import Tally, attack_all, chunks
    from attack.registry import BY_NAME

    multiprocessing.get_context("forkserver").set_forkserver_preload(["attack.registry", "attack.kills"])
    tallies, killed = {name: Tally() for name in counts}, []
    queue = chunks(counts)
    random.Random(seed).shuffle(queue)  # so that the first minutes tell how long the rest takes
    with (
        tempfile.TemporaryDirectory(prefix="attack-", ignore_cleanup_errors=True) as place,
        tempfile.TemporaryDirectory(prefix="attack-", dir=MEMORY, ignore_cleanup_errors=True) as small,
        Progress(*COLUMNS, console=console) as progress,
    ):
        if queue:
            bar = progress.add_task("inputs", total=sum(BY_NAME[name].ms * n for name, n in counts.items()))

            def done(name: str, tally: Tally) -> None:
                tallies[name].add(tally)
                progress.advance(bar, BY_NAME[name].ms * tally.inputs)

            attack_all(queue, seed, parallel, LIMIT, Path(small), done)
        for subject, share in split_kills(kills):
            if share:
                advance = partial(progress.advance, progress.add_task(f"kills, {subject.name}", total=share))
                killed.append(kill_runs(subject, share, seed, parallel, Path(place), advance))
    return tallies, killed


def again(name: str, seed: int, index: int) -> int:
    """Try one input in this process and show it."""
    from attack.core import LIMIT, attempt, input_of
    from attack.registry import BY_NAME

    target = BY_NAME[name]
    data = input_of(target, seed, index)
    shown = ascii(data)
    print(f"{name}, seed {seed}, input {index}, {len(data):,} long: {shown[:3_000]}{'...' * (len(shown) > 3_000)}\n")
    outcome = attempt(target, seed, index)
    if outcome.seconds < LIMIT:
        try:
            target.attack(data)
        except Exception:
            traceback.print_exc()
    what = "finding" if outcome.finding else "refused" if outcome.refused else "accepted"
    print(f"{what} after {outcome.seconds:.3f} s{': ' + outcome.finding.message if outcome.finding else ''}")
    return 1 if outcome.finding else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
