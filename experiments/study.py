"""The study behind README's table: main job and two baselines over several seeds. Finished cells are kept.

    python experiments/study.py --seeds 0,1,2 --out runs/study

Each cell is one `experiments/run.py`; a stopped study goes on where it stood, inside cells too.
Baselines take as many environment steps as the main job of the same seed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import typer

from experiments.job import read_metrics
from experiments.run import one_line

HERE = Path(__file__).resolve().parent
BASELINES = {"rejection": "plan", "react-grpo": "none"}  # config file: the agent it trains
LABELS = {"main": "three stages (split)", "rejection": "rejection-sampling fine-tuning", "react-grpo": "ReAct + GRPO"}
app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def study(
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "0,1,2",
    out: Annotated[Path, typer.Option(help="Folder with one run per cell.")] = Path("runs/study"),
    parallel: Annotated[int, typer.Option(help="Cells at once, one torch thread each.")] = 2,
    only_table: Annotated[bool, typer.Option("--only-table", help="Run nothing; print what is there.")] = False,
    set: Annotated[list[str] | None, typer.Option("--set", help="Overrides for every cell.")] = None,
) -> None:
    numbers = [int(seed) for seed in seeds.split(",")]
    if not only_table:
        with ThreadPoolExecutor(parallel) as pool:
            mains = {seed: pool.submit(cell, "main", seed, out, set or []) for seed in numbers}
            wanted = [(name, seed) for name in BASELINES for seed in numbers]  # none waits for one that has not begun
            rest = [pool.submit(cell, name, seed, out, set or [], mains[seed]) for name, seed in wanted]
        for done in (*mains.values(), *rest):
            done.result()
    text = table(out, numbers)
    print(text)
    (out / "table.md").write_text(text + "\n")


def cell(name: str, seed: int, out: Path, overrides: list[str], after: Future[None] | None = None) -> None:
    """Run one cell to its end, or go on with it, unless it is finished; ``after`` another, whose steps it matches."""
    folder = out / f"{name}-{seed}"
    if after is not None:
        after.result()
    if (folder / "report.html").is_file():
        return
    command = [sys.executable, str(HERE / "run.py")]
    if (folder / "config.yaml").is_file():
        command += ["--resume", str(folder)]
    else:
        command += ["--seed", str(seed), "--out", str(folder), "--set", "threads=1"]
        if name != "main":
            command += ["--config", str(HERE / "configs" / f"{name}.yaml"), "--match", str(out / f"main-{seed}")]
        command += [part for text in overrides for part in ("--set", text)]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT)
    print(f"{folder.name}: {'done' if done.returncode == 0 else f'failed, see {folder}/log.txt'}", flush=True)


def table(out: Path, seeds: list[int]) -> str:
    """Success per seed on the train and held-out panels, the base at its best decoding, and the gains."""
    rows = ["| agent | panel | " + " | ".join(f"seed {s}" for s in seeds) + " | mean | gain over base | env steps |"]
    rows.append("|" + "---|" * (len(seeds) + 5))
    for name, agent in (("main", "plan"), *BASELINES.items()):
        runs = [read_metrics(out / f"{name}-{s}") for s in seeds if (out / f"{name}-{s}" / "report.html").is_file()]
        if not runs:
            continue
        steps = fmean(max(r["env_steps"] for r in run if r["kind"] == "train") for run in runs)
        for panel in ("train", "heldout"):
            if name == "main":
                base = [one(run, "base", "plan", panel) for run in runs]
                rows.append(line("untrained, best decoding", panel, base, None, 0, len(seeds)))
            final = [one(run, "final", agent, panel) for run in runs]
            start = [one(run, "base", "plan", panel) for run in runs]
            rows.append(line(LABELS[name], panel, final, start, steps, len(seeds)))
    first = json.loads((out / f"main-{seeds[0]}" / "panels.json").read_text())
    hashes = ", ".join(f"{known['panel']} {known['hash']} ({known['tasks']} tasks)" for known in first.values())
    return "\n".join([*rows, "", f"Panels: {hashes}. Gains with a 95 % t-interval over seeds."])


def one(run: list[dict[str, Any]], stage: str, agent: str, panel: str) -> float:
    """The newest figure of that kind (train and held-out panels are measured at the dev panel's best decoding)."""
    found = [r for r in run if r["kind"] == "eval" and (r["stage"], r["agent"], r["panel"]) == (stage, agent, panel)]
    return float(found[-1]["success"])


def line(label: str, panel: str, values: list[float], base: list[float] | None, steps: float, columns: int) -> str:
    cells = [f"{v:.0%}" for v in values] + ["–"] * (columns - len(values))
    gain = "–" if base is None else interval([v - b for v, b in zip(values, base, strict=True)])
    row = [label, panel, *cells, f"{fmean(values):.0%}", gain, f"{steps:,.0f}"]
    return f"| {' | '.join(row)} |"


def interval(gains: list[float]) -> str:
    """Mean gain in points with a t-interval over seeds."""
    if len(gains) < 2:
        return f"{100 * fmean(gains):+.0f}"
    from scipy.stats import t

    half = float(t.ppf(0.975, len(gains) - 1)) * stdev(gains) / len(gains) ** 0.5
    return f"{100 * fmean(gains):+.0f} [{100 * (fmean(gains) - half):+.0f}, {100 * (fmean(gains) + half):+.0f}]"


if __name__ == "__main__":
    sys.exit(one_line(app))
