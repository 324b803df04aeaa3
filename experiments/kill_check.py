"""Repeat a finished run with kills at random times, and compare the files.

\b
  python experiments/kill_check.py runs/mixed-split-0

Starts a copy of the run with the same config, kills and resumes it several times, and compares its files byte for byte
with those of the run: metrics, adapters, panels, transcripts and checkpoints. Files with times are not compared. The
exit code is 1 if a file differs.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import typer

from hiplan.cli.app import run as one_line
from hiplan.errors import ConfigError
from hiplan.text import clean
from hiplan.training.folder import LOCK

TIMES = ("times.jsonl", "times.json", "report.html", "log.txt")  # files with wall times
app = typer.Typer(
    add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, pretty_exceptions_show_locals=False
)


@app.command(help=__doc__)
def kill_check(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the copy. [default: RUN-killed]")] = None,
    kills: Annotated[int, typer.Option(help="Number of kills.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the kill times.")] = 0,
) -> None:
    if not (run / "report.html").is_file():
        raise ConfigError(f"{str(run)!r} is not a finished run; expected a folder with report.html")
    copy = out or run.with_name(f"{run.name}-killed")
    if copy.exists():
        raise ConfigError(f"{str(copy)!r} exists; choose another folder with --out")
    seconds = json.loads((run / "times.json").read_text())["wall_s"]
    rng = random.Random(seed)
    moments = sorted(rng.uniform(0.02, 0.98) * seconds for _ in range(kills))
    begin = ["--config", str(run / "config.yaml"), "--out", str(copy)]
    for wait in [b - a for a, b in zip([0.0, *moments], moments, strict=False)]:
        process = start(begin, copy)
        try:
            process.wait(wait + 5)  # plus about five seconds for imports and loading
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        print(f"killed after {wait + 5:.0f} s with {rows(copy)} rows of metrics", flush=True)
    if start(begin, copy).wait():
        raise ConfigError(f"the last part of the run failed; see {str(copy.with_suffix('.log'))!r}")
    different = sorted(name for name in files(run) | files(copy) if not same(run / name, copy / name))
    print(f"{len(files(run))} files compared; different: {clean(', '.join(different)) or 'none'}")
    raise typer.Exit(bool(different))


def start(begin: list[str], copy: Path) -> subprocess.Popen[bytes]:
    """Start or resume the copy."""
    given = ["--resume", str(copy)] if (copy / "config.yaml").is_file() else begin
    command = [sys.executable, str(Path(__file__).with_name("run.py")), *given]
    with copy.with_suffix(".log").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def rows(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.is_file() else 0


def files(folder: Path) -> set[str]:
    found = (str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    return {name for name in found if name not in (*TIMES, LOCK)}


def same(a: Path, b: Path) -> bool:
    return a.is_file() and b.is_file() and a.read_bytes() == b.read_bytes()


if __name__ == "__main__":
    sys.exit(one_line(app))
