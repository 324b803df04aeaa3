"""The main job: evaluate the untrained agent, train it in stages, evaluate it again, and write a report.

All results go to one folder as soon as they exist, so that a killed job can be resumed.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.progress import Progress

from hiplan.errors import ConfigError
from hiplan.evaluation import EvalResult, cost
from hiplan.files import write_text
from hiplan.models.local import LocalModel
from hiplan.models.weights import RoleWeights
from hiplan.report.curves import draw_curves
from hiplan.report.files import read_metrics as read_rows
from hiplan.report.graph import draw_plan
from hiplan.report.html import write_report
from hiplan.report.tables import results_table
from hiplan.runs.cells import COLUMNS
from hiplan.runs.machine import machine
from hiplan.runs.measure import PANELS, evaluation_sampler, measure_agents, panels
from hiplan.runs.settings import RunConfig
from hiplan.trace import ROLES, Episode
from hiplan.training.algorithm import build
from hiplan.training.config import Stage
from hiplan.training.trainer import ProgressiveTrainer

SAMPLES = 6  # stored episodes per panel (train and held-out): those of its first tasks


class Job:
    """One run in the folder ``out``; ``run`` starts or resumes it. Raises ``UserError`` for settings it cannot use."""

    def __init__(self, config: RunConfig, out: Path, console: Console) -> None:
        torch.set_num_threads(config.threads)
        self.config, self.out, self.console = config, out, console
        self.panels = panels(config)
        algorithm = build(config.train.algorithm)  # first, to report unknown names before loading the model
        self.model = load(config)
        out.mkdir(parents=True, exist_ok=True)
        self.trainer = ProgressiveTrainer(
            self.model, config.env, config=config.train, seed=config.seed, output_dir=out, resume=True,
            on_iteration=self._show_iteration, on_stage_end=self._end_stage,
            algorithm=algorithm, about={"env": config.env, "eval_turns": config.eval_turns},
        )  # fmt: skip
        self.sampler = evaluation_sampler(config, self.trainer.sampler)
        self._progress: Progress | None = None
        self.first = self.trainer.accelerator.is_main_process  # only this process writes
        if not self.first:
            self.console = Console(quiet=True)

    def run(self) -> None:
        """Evaluate, train, evaluate, and write the report."""
        if self.first:
            self._describe_run()
        with self._progress_bar():
            if not self.trainer.resumed:
                self._measure_all_panels("base")
                self.trainer.save()
            self.trainer.train()
            if self.config.train.stages:
                self._measure_all_panels("final", final=True)
        if self.first:
            self._report()
        self.trainer.accelerator.end_training()

    # -- evaluation --------------------------------------------------------------------------

    def _measure_all_panels(self, stage: str, final: bool = False) -> None:
        """Evaluate every agent on all panels with the first decoding of the config.

        The untrained agent is also evaluated with the decoding that is best on dev, so that training that only lowers
        the entropy does not count as an improvement.
        """
        how = {"plan": "with plans", "none": "without plans"}
        self._print(f"{stage}: evaluating {' and '.join(how[agent] for agent in self.config.agents)}")
        agents, (first, *others) = self.config.agents, self.config.decodings
        dev = [(agents[0], name, "dev") for name in (() if final else others)]
        cells = [*dev, *((agent, first, panel) for agent in agents for panel in PANELS)]
        results = dict(zip(cells, self._evaluate(cells), strict=True))
        best = max([first, *(name for _, name, _ in dev)], key=lambda d: results[agents[0], d, "dev"].success)
        if best != first:
            again = [(agents[0], best, panel) for panel in ("train", "heldout")]
            results |= dict(zip(again, self._evaluate(again), strict=True))
        for (agent, name, panel), result in results.items():
            self._record(stage, agent, name, panel, result)
        if final:
            ends = [results[agents[0], first, panel] for panel in ("train", "heldout")]
            self._keep_samples([episode for result in ends for episode in result.episodes[:SAMPLES]])
        elif others:
            self._print(f"{stage}: best decoding on the {len(self.panels['dev'].tasks)} dev tasks is {best}")

    def _evaluate(self, cells: Sequence[tuple[str, str, str]]) -> list[EvalResult]:
        """One result per cell of (agent, decoding, panel)."""
        known = [(agent, decoding, self.panels[panel].tasks) for agent, decoding, panel in cells]
        return measure_agents(self.config, self.sampler, known)

    def _record(self, stage: str, agent: str, decoding: str, panel: str, result: EvalResult) -> None:
        low, high = result.interval
        self.trainer.metrics.add(
            {
                "kind": "eval",
                "stage": stage,
                "iteration": self.trainer.cursor.total,
                "env_steps": self.trainer.cursor.env_steps,
                "panel": panel,
                "agent": agent,
                "decoding": decoding,
                "success": result.success,
                "low": low,
                "high": high,
                "n": len(result.episodes),
                "adherence": result.adherence,
                "turns": result.turns,
                **costs(result),
                "solved": "".join("01"[e.success] for e in result.episodes),
            }
        )

    def _keep_samples(self, episodes: list[Episode]) -> None:
        """Store the transcripts of the panels' first tasks, whether solved or not."""
        if self.first:
            write_text(self.out / "transcripts.jsonl", "".join(f"{e.to_json()}\n" for e in episodes))

    # -- training ----------------------------------------------------------------------------

    def _end_stage(self, stage: Stage) -> None:
        if stage is self.config.train.stages[-1]:
            return  # ``run`` evaluates all panels next
        name = self.config.decodings[0]
        cells = [(agent, name, panel) for agent in self.config.agents for panel in self.config.stage_panels]
        for (agent, _, panel), result in zip(cells, self._evaluate(cells), strict=True):
            self._record(stage.name, agent, name, panel, result)
            if (agent, panel) == (self.config.agents[0], "dev"):
                low, high = result.interval
                self._print(f"{stage.name}: dev success {result.success:.0%} [{low:.0%}, {high:.0%}] ({name})")

    def _show_iteration(self, row: dict[str, Any]) -> None:
        adherence = "" if row["adherence"] is None else f"  adherence {row['adherence']:.0%}"
        line = f"{row['stage']:>8}  success {row['success']:.0%}{adherence}  turns {row['turns']:.1f}"
        if self._progress is not None:
            self._progress.update(self._bar, completed=row["iteration"] + 1, description=line)
        if row["iteration"] % 5 == 0 and not self.console.is_terminal:
            self._print(f"iteration {row['iteration'] + 1:>4}  {line}")

    # -- output ------------------------------------------------------------------------------

    @contextmanager
    def _progress_bar(self) -> Iterator[None]:
        """Show a progress bar with the remaining time, if the output is a terminal."""
        total = sum(stage.iterations for stage in self.config.train.stages)
        with Progress(*COLUMNS, console=self.console, disable=not self.console.is_terminal) as self._progress:
            self._bar = self._progress.add_task("evaluating", total=total, completed=self.trainer.cursor.total)
            self._began = time.perf_counter()
            yield

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def _describe_run(self) -> None:
        write_text(self.out / "config.yaml", yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False))
        known = {p.name: {"hash": p.hash, "tasks": len(p.tasks), "panel": key} for key, p in self.panels.items()}
        write_text(self.out / "panels.json", json.dumps(known, indent=2) + "\n")
        for key, panel in self.panels.items():
            write_text(self.out / "panels" / f"{key}.json", panel.model_dump_json() + "\n")
        about = environment(self.config) | {"parameters": parameters(self.model.weights)}
        write_text(self.out / "environment.json", json.dumps(about, indent=2) + "\n")
        what = "resuming" if self.trainer.resumed else "starting"
        hashes = ", ".join(f"{key} {panel.hash}" for key, panel in self.panels.items())
        self._print(f"{what} the run in {self.out}; panels: {hashes}")

    def _report(self) -> None:
        rows = self.trainer.metrics.rows
        draw_curves(rows, self.out / "curves.png")
        samples = self.out / "transcripts.jsonl"
        if samples.is_file():
            episodes = [Episode.from_json(line) for line in samples.read_text().split("\n") if line]
            draw_plan(next((e for e in episodes if e.plan), episodes[0]), self.out / "plan_graph.png")
        seconds = [json.loads(line) for line in (self.out / "times.jsonl").read_text().splitlines()]
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        spent = {"wall_s": seconds[-1]["elapsed_s"] if seconds else 0, "memory_mb": memory}
        write_text(self.out / "times.json", json.dumps(spent) + "\n")
        page = write_report(self.out)
        self.console.print(results_table([row for row in rows if row["kind"] == "eval"], self.panels))
        self._print(f"report: {page}")


def costs(result: EvalResult) -> dict[str, float]:
    """Mean ``calls``, ``read`` and ``written`` per episode (see ``hiplan.evaluation.cost``)."""
    every = [cost(e) for e in result.episodes]
    return {key: fmean(getattr(c, key) for c in every) for key in ("calls", "read", "written")}


def load(config: RunConfig) -> LocalModel:
    """Load the run's model with new adapters."""
    return LocalModel.load(
        config.model, config.weights, config.seed,
        dtype=config.dtype, window=config.window, keep_reasoning=config.keep_reasoning,
    )  # fmt: skip


def environment(config: RunConfig) -> dict[str, Any]:
    """What results depend on besides the config: machine, versions, threads."""
    return machine() | {"threads": config.threads}


def parameters(weights: RoleWeights) -> dict[str, int]:
    """The number of parameters: ``total``, and ``trained`` in any stage."""
    trained = {id(p): p.numel() for role in ROLES for p in weights.parameters(role).values()}
    every = {id(p): p.numel() for body in weights.bodies for p in body.model.parameters()}
    return {"total": sum((every | trained).values()), "trained": sum(trained.values())}


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """A run's metric rows. Raises ``ConfigError`` if the folder has none."""
    if not (folder / "metrics.jsonl").is_file():
        raise ConfigError(f"no run at {str(folder)!r}; expected a run folder with metrics.jsonl")
    return read_rows(folder / "metrics.jsonl")
