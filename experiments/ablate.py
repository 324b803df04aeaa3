"""Studies: runs of the main job that differ in a few settings, over seeds, with equal environment steps.

A cell is one run. Its summary is kept as a small JSON file; a study that was stopped skips the cells it has and goes on
inside those it had begun.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import Progress

from experiments.studies import SEARCH_SEED, Study
from hiplan.errors import ConfigError
from hiplan.runs.cells import COLUMNS, read_kept, run_cells
from hiplan.runs.job import read_metrics
from hiplan.runs.settings import RunConfig, matched, read_run, resolve
from hiplan.training.checkpoint import write_text

HERE = Path(__file__).resolve().parent
Summary = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    arm: str
    seed: int
    rate: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.arm}-x{self.rate:g}-{self.seed}" if self.rate != 1 else f"{self.arm}-{self.seed}"


class Runner:
    """Runs the cells of one study; ``kept`` holds their summaries, ``runs`` their run folders."""

    def __init__(self, study: Study, kept: Path, runs: Path, parallel: int, extra: Sequence[str], console: Console):
        self.study, self.kept, self.runs, self.extra, self.console = study, kept, runs, tuple(extra), console
        self.pool = ThreadPoolExecutor(parallel)
        self.futures: dict[Cell, Future[Summary]] = {}

    def all(self, seeds: Sequence[int]) -> tuple[list[Summary], dict[str, float]]:
        """Every summary, and each arm's chosen learning-rate factor."""
        arms = self.study.arms
        with self.pool, Progress(*COLUMNS, console=self.console, disable=not self.console.is_terminal) as progress:
            bar = progress.add_task("cells", total=len(arms) * (len(self.study.rates) + len(seeds)))
            tried = [Cell(arm, SEARCH_SEED, rate) for arm in arms for rate in self.study.rates]
            for cell in tried:
                self.submit(cell).add_done_callback(lambda _: progress.advance(bar))
            searched = self.results(tried)
            chosen = {arm: best_rate([s for s in searched if s["arm"] == arm]) for arm in arms}
            cells = [Cell(arm, seed, chosen[arm]) for arm in arms for seed in seeds]
            for cell in cells:
                self.submit(cell).add_done_callback(lambda _: progress.advance(bar))
            return [*searched, *self.results(cells)], chosen

    def results(self, cells: Sequence[Cell]) -> list[Summary]:
        """Their summaries; the first failure, or a person's interruption, ends the study and begins no further cell."""
        try:
            for done in as_completed([self.futures[cell] for cell in cells]):
                done.result()
        except BaseException:
            self.pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [self.futures[cell].result() for cell in cells]

    def submit(self, cell: Cell) -> Future[Summary]:
        if cell not in self.futures:
            match = self.study.arms[cell.arm].match
            first = self.submit(Cell(match, cell.seed)) if match else None  # begun before it, so none waits in vain
            self.futures[cell] = self.pool.submit(self.run, cell, first)
        return self.futures[cell]

    def run(self, cell: Cell, first: Future[Summary] | None) -> Summary:
        """The cell's summary: from its file, or from a run, which goes on where it stood."""
        settings = self.settings(cell)
        if first is not None:
            settings = matched(settings, first.result()["env_steps"])
        digest = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:12]
        file = self.kept / f"{cell.name}.json"
        if file.is_file():
            known: Summary = read_kept(file)
            if known.get("config") != digest:
                raise ConfigError(f"{str(file)!r} was made with other settings; delete it, or give another --kept")
            return known
        folder = self.runs / cell.name
        if (folder / "config.yaml").is_file() and read_run(folder) != settings:
            raise ConfigError(f"the run {str(folder)!r} was made with other settings; delete it, or give another --out")
        if not (folder / "report.html").is_file():
            self._launch(cell, folder, settings)
        summary = summarize(cell, folder, digest)
        if self.study.reliance:
            summary["reliance"] = self._reliance(folder, settings)
        write_text(file, json.dumps(summary, indent=1, sort_keys=True) + "\n")
        self.console.print(f"{cell.name}: done in {summary['wall_s']:.0f} s", markup=False, highlight=False)
        return summary

    def settings(self, cell: Cell) -> RunConfig:
        arm = self.study.arms[cell.arm]
        config = HERE / "configs" / arm.config if arm.config else None
        given = [*self.study.set, *arm.set, "threads=1", *self.extra]
        known = resolve(config, given, seed=cell.seed)
        stages = [s.model_copy(update={"learning_rate": cell.rate * s.learning_rate}) for s in known.train.stages]
        return known.model_copy(update={"train": known.train.model_copy(update={"stages": tuple(stages)})})

    def _launch(self, cell: Cell, folder: Path, settings: RunConfig) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "metrics.jsonl").is_file():
            self._command(cell, folder, "--resume", str(folder))
        else:
            asked = folder / "asked.yaml"
            asked.write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
            self._command(cell, folder, "--config", str(asked), "--out", str(folder))

    def _reliance(self, folder: Path, settings: RunConfig) -> Summary:
        """The last stage under different plans."""
        from hiplan.runs.diagnose import AFTER, Run, Setting, reliance_cell

        setting = Setting(str(self.study.reliance), settings.panel_tasks, settings.decodings[0])
        cell = reliance_cell(Run.read(folder, settings.train.stages[-1].name), AFTER, setting, folder)
        (found,) = run_cells([cell], 1, Console(quiet=True))
        return {key: found[key] for key in ("panel", "results")}

    def _command(self, cell: Cell, folder: Path, *arguments: str) -> None:
        with (folder / "log.txt").open("a") as log:
            command = [sys.executable, str(HERE / "run.py"), *arguments]
            if subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode:
                raise ConfigError(f"the cell {cell.name} failed; see {folder / 'log.txt'}")


def summarize(cell: Cell, folder: Path, digest: str) -> Summary:
    """What a study needs of a run."""
    rows = read_metrics(folder)
    about = json.loads((folder / "environment.json").read_text())
    times = json.loads((folder / "times.json").read_text())
    return {
        "arm": cell.arm,
        "seed": cell.seed,
        "rate": cell.rate,
        "config": digest,
        "panels": json.loads((folder / "panels.json").read_text()),
        "parameters": about["parameters"],
        "env_steps": max((row["env_steps"] for row in rows if row["kind"] == "train"), default=0),
        "evals": [row for row in rows if row["kind"] == "eval"],
        "wall_s": times["wall_s"],
        "memory_mb": times["memory_mb"],
    }


def best_rate(tried: Sequence[Summary]) -> float:
    """The factor with the highest success on the dev panel after the last stage; the smallest of equals."""
    if not tried:
        return 1.0
    ranked = sorted(tried, key=lambda s: s["rate"])
    return float(max(ranked, key=lambda s: value(s, "final", "dev", "plan"))["rate"])


def evaluation(summary: Summary, stage: str, panel: str, agent: str) -> Summary:
    """The evaluation at the decoding that was measured last: the best on dev for an untrained agent."""
    found = [e for e in summary["evals"] if (e["stage"], e["panel"], e["agent"]) == (stage, panel, agent)]
    if not found:
        raise ConfigError(f"the run of {summary['arm']} has no evaluation of {agent} on {panel} after {stage}")
    best: Summary = max(found, key=lambda e: e["success"]) if panel == "dev" else found[-1]
    return best


def value(summary: Summary, stage: str, panel: str, agent: str) -> float:
    return float(evaluation(summary, stage, panel, agent)["success"])
