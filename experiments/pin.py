"""Run a small training at two commits and compare the files.

\b
  python experiments/pin.py 178c14a
  python experiments/pin.py 178c14a HEAD --modes split,joint

Trains with every weight mode, in one process and in two, for three stages of two iterations each, and compares metrics,
transcripts and adapters byte for byte. A refactoring must not change them. Both commits run on this machine, because
rounding differs between processors. Finished runs are stored in runs/pin/COMMIT and not repeated. The exit code is 1 if
a file differs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
MODES = ("split", "joint", "partial", "separate")
SMALL = """\
agents: [plan, none]
decodings: [greedy]
panel_tasks: 6
eval_turns: 8
threads: 1
train:
  groups: 3
  group_size: 4
  resample: 1
  turns: 8
  plan_kl: 2
  stages:
    - {name: executor, trains: [executor], plans: oracle, iterations: 2, no_plan: 0.3, rewards: {adherence: 0.2, coverage: 0.1}}
    - {name: planner, trains: [planner], plans: self, iterations: 2, kl: 0.01, rewards: {quality: 0.2}}
    - {name: joint, trains: [planner, executor], plans: self, iterations: 2, no_plan: 0.1}
"""  # noqa: E501
console = Console()
app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__)
def pin(
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="A commit.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="Another commit.")] = "HEAD",
    out: Annotated[Path, typer.Option(help="Folder for the runs.", show_default="runs/pin")] = ROOT / "runs" / "pin",
    modes: Annotated[str, typer.Option(help="Weight modes, comma-separated.")] = ",".join(MODES),
) -> None:
    table = Table("weights", "processes", "files compared", "different", header_style="bold")
    differ = False
    for mode in modes.split(","):
        for processes in (1, 2):
            one, other = (play(commit, mode, processes, out.resolve()) for commit in (before, after))
            names = sorted(compared(one) | compared(other))
            unlike = [
                difference(one / name, other / name, name) for name in names if not same(one / name, other / name)
            ]
            table.add_row(mode, str(processes), str(len(names)), "\n".join(unlike) or "none")
            differ |= bool(unlike)
    console.print(table)
    raise typer.Exit(differ)


def play(commit: str, mode: str, processes: int, out: Path) -> Path:
    """The folder of the commit's run; runs it if it is missing."""
    name = git("rev-parse", "--short=12", commit)
    tree, folder = out / name / "tree", out / name / f"{mode}-{processes}"
    if (folder / "report.html").is_file():
        return folder
    if not tree.is_dir():
        git("worktree", "prune")
        git("worktree", "add", "--detach", str(tree), name)
    config = out / "small.yaml"
    config.write_text(SMALL)
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    job = ["experiments/run.py", "--config", str(config), "--weights", mode, "--out", str(folder)]
    console.print(f"{name} {mode}, processes: {processes}", highlight=False)
    known = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)}
    run = subprocess.run([*launch, *job], cwd=tree, env=known, capture_output=True, text=True)
    if run.returncode:
        console.print(run.stdout[-2000:] + run.stderr[-4000:], markup=False)
        raise typer.Exit(2)
    return folder


def compared(folder: Path) -> set[str]:
    """The names of the files to compare: metrics, transcripts and adapters."""
    adapters = {str(path.relative_to(folder)) for path in folder.glob("stages/*/*/*.safetensors")}
    return {"metrics.jsonl", "transcripts.jsonl"} | adapters


def same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def difference(one: Path, other: Path, name: str) -> str:
    """The file's name and, for metrics, the fields that differ."""
    if name != "metrics.jsonl":
        return name
    rows, others = ([json.loads(line) for line in path.read_text().splitlines()] for path in (one, other))
    keys = {key for a, b in zip(rows, others, strict=False) for key in a | b if a.get(key) != b.get(key)}
    count = "" if len(rows) == len(others) else f" ({len(rows)} and {len(others)} rows)"
    return f"{name}{count}: {', '.join(sorted(keys)) or 'order or format only'}"


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    app()
