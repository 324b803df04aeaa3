"""The main job: measure the untrained agent, train it stage by stage, measure it again, and report.

Everything is written to one folder as it happens, so a killed job goes on where it stood.
"""

from __future__ import annotations

import json
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.progress import Progress

from experiments.cells import COLUMNS
from experiments.settings import RunConfig
from hiplan.coordination import Limits
from hiplan.envs import make_env
from hiplan.errors import ConfigError
from hiplan.evaluation import (
    TEMPERATURES,
    Cell,
    EvalResult,
    Panel,
    cost,
    evaluate,
    fresh_panel,
    shipped_panel,
    train_mix,
)  # fmt: skip
from hiplan.evaluation.panels import PanelName
from hiplan.executors import Executor
from hiplan.models.local import LocalModel
from hiplan.models.stages import save_stage
from hiplan.models.weights import RoleWeights
from hiplan.planners import NoPlanner, Planner, PlannerProtocol
from hiplan.report.curves import draw_curves
from hiplan.report.files import read_metrics as read_rows
from hiplan.report.graph import draw_plan
from hiplan.report.html import write_report
from hiplan.report.tables import results_table
from hiplan.trace import ROLES, Episode
from hiplan.training.checkpoint import write_text
from hiplan.training.config import Stage
from hiplan.training.trainer import ProgressiveTrainer

AGENTS = ("plan", "none")
PANELS: tuple[PanelName, ...] = ("train", "dev", "heldout")


class Job:
    """One run in ``out``; ``run`` does all of it or what is left of it."""

    def __init__(self, config: RunConfig, out: Path, console: Console) -> None:
        torch.set_num_threads(config.threads)
        self.config, self.out, self.console = config, out, console
        self.panels = panels(config)
        self.model = load(config)
        out.mkdir(parents=True, exist_ok=True)
        self.trainer = ProgressiveTrainer(
            self.model, train_mix(config.env), make_env, config.train, config.seed, out,
            on_iteration=self._show_iteration, on_stage_end=self._end_stage,
        )  # fmt: skip
        self._progress: Progress | None = None
        self.first = self.trainer.accelerator.is_main_process  # of several processes, the one that writes
        if not self.first:
            self.console = Console(quiet=True)

    def run(self) -> None:
        """Measure, train, measure, report."""
        if self.first:
            self._describe_run()
        with self._watching():
            if not self.trainer.resumed:
                self._measure_whole("base")
                self.trainer.save()
            self.trainer.train()
            if self.config.train.stages:
                self._measure_whole("final", sample=True)
        if self.first:
            self._report()
        self.trainer.accelerator.end_training()

    # -- measuring ---------------------------------------------------------------------------

    def _measure_whole(self, stage: str, sample: bool = False) -> None:
        """Every decoding of the first agent on dev (one of the other's); the best on the train and held-out panels."""
        self._say(f"{stage}: measuring with plans and without")
        dev = self.panels["dev"].tasks
        agents = {a: self.config.decodings[: None if i == 0 else 1] for i, a in enumerate(self.config.agents)}
        tried = [(agent, name) for agent, names in agents.items() for name in names]
        results = dict(zip(tried, self._evaluate([(a, d, "dev") for a, d in tried]), strict=True))
        for (agent, name), result in results.items():
            self._record(stage, agent, name, "dev", result)
        best = {a: max(names, key=lambda d: results[a, d].success) for a, names in agents.items()}  # first of equals
        cells = [(agent, best[agent], panel) for agent in agents for panel in ("train", "heldout")]
        for (agent, name, panel), result in zip(cells, self._evaluate(cells), strict=True):
            self._record(stage, agent, name, panel, result)
            if sample and agent == self.config.agents[0]:
                self._keep_samples(result.episodes)
        chosen = ", ".join(f"{agent} {name}" for agent, name in best.items())
        self._say(f"{stage}: best decoding on {len(dev)} dev tasks: {chosen}")

    def _evaluate(self, cells: list[tuple[str, str, str]]) -> list[EvalResult]:
        planner: dict[str, PlannerProtocol] = {"plan": Planner(self.model.prompts), "none": NoPlanner()}
        executor, decode = Executor(self.model.prompts), self.config.train.decoding
        return evaluate(
            self.model,
            [
                Cell(self.panels[panel].tasks, planner[agent], executor, decode(TEMPERATURES[d]))
                for agent, d, panel in cells
            ],
            make_env,
            policy=self.trainer.revise,
            limits=Limits(turns=self.config.eval_turns),
            share=self.trainer.play,
        )

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
        """A few transcripts: revised and solved ones first, then failures."""
        if not self.first:
            return
        ranked = sorted(episodes, key=lambda e: (not e.success, -min(3, revisions(e)), e.task.id))
        picked = [*ranked[:4], *[e for e in ranked if not e.success][:2]]
        path = self.out / "transcripts.jsonl"
        known = path.read_text().split("\n")[:-1] if path.is_file() else []
        fresh = [e.to_json() for e in picked]
        write_text(path, "\n".join([*fresh, *[line for line in known if line not in fresh]][:12]) + "\n")

    # -- training ----------------------------------------------------------------------------

    def _end_stage(self, stage: Stage) -> None:
        folder = self.out / "stages" / stage.name
        about = {"stage": stage.name, "seed": self.config.seed, "env": self.config.env}
        about |= {"eval_turns": self.config.eval_turns, "decoding": vars(self.config.train.decoding())}
        about |= {"revise": self.config.train.revise}
        save_stage(self.model, folder, self.config.model, about, write=self.first)
        if stage is self.config.train.stages[-1]:
            return  # the whole measuring follows
        name = self.config.decodings[0]
        cells = [(agent, name, panel) for agent in self.config.agents for panel in self.config.stage_panels]
        for (agent, _, panel), result in zip(cells, self._evaluate(cells), strict=True):
            self._record(stage.name, agent, name, panel, result)
            if (agent, panel) == (self.config.agents[0], "dev"):
                low, high = result.interval
                self._say(f"{stage.name}: dev success {result.success:.0%} [{low:.0%}, {high:.0%}] ({name})")

    def _show_iteration(self, row: dict[str, Any]) -> None:
        adherence = "" if row["adherence"] is None else f"  adherence {row['adherence']:.0%}"
        line = f"{row['stage']:>8}  success {row['success']:.0%}{adherence}  turns {row['turns']:.1f}"
        if self._progress is not None:
            self._progress.update(self._bar, completed=row["iteration"] + 1, description=line)
        if row["iteration"] % 5 == 0 and not self.console.is_terminal:
            self._say(f"iteration {row['iteration'] + 1:>4}  {line}")

    # -- the record --------------------------------------------------------------------------

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """A progress bar with the time left, where there is a terminal."""
        total = sum(stage.iterations for stage in self.config.train.stages)
        with Progress(*COLUMNS, console=self.console, disable=not self.console.is_terminal) as self._progress:
            self._bar = self._progress.add_task("measuring", total=total, completed=self.trainer.cursor.total)
            self._began = time.perf_counter()
            yield

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def _describe_run(self) -> None:
        write_text(self.out / "config.yaml", yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False))
        known = {p.name: {"hash": p.hash, "tasks": len(p.tasks), "panel": key} for key, p in self.panels.items()}
        write_text(self.out / "panels.json", json.dumps(known, indent=2) + "\n")
        for key, panel in self.panels.items():
            write_text(self.out / "panels" / f"{key}.json", panel.model_dump_json() + "\n")
        about = environment(self.config) | {"parameters": parameters(self.model.weights)}
        write_text(self.out / "environment.json", json.dumps(about, indent=2) + "\n")
        where = "going on" if self.trainer.resumed else "starting"
        hashes = ", ".join(f"{key} {panel.hash}" for key, panel in self.panels.items())
        self._say(f"{where} in {self.out}; panels {hashes}")

    def _report(self) -> None:
        rows = self.trainer.metrics.rows
        draw_curves(rows, self.out / "curves.png")
        samples = self.out / "transcripts.jsonl"
        if samples.is_file():
            episodes = [Episode.from_json(line) for line in samples.read_text().split("\n") if line]
            draw_plan(max(episodes, key=lambda e: (e.success, min(3, revisions(e)))), self.out / "plan_graph.png")
        seconds = [json.loads(line) for line in (self.out / "times.jsonl").read_text().splitlines()]
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        spent = {"wall_s": seconds[-1]["elapsed_s"] if seconds else 0, "memory_mb": memory}
        write_text(self.out / "times.json", json.dumps(spent) + "\n")
        page = write_report(self.out)
        self.console.print(results_table([row for row in rows if row["kind"] == "eval"]))
        self._say(f"report: {page}")


def costs(result: EvalResult) -> dict[str, float]:
    """Means over episodes: model calls, tokens read and written."""
    every = [cost(e) for e in result.episodes]
    return {key: fmean(getattr(c, key) for c in every) for key in ("calls", "read", "written")}


def revisions(episode: Episode) -> int:
    """How often the plan was changed."""
    return sum(record.plan is not None and not record.kept for record in episode.plans[1:])


def panels(config: RunConfig) -> dict[str, Panel]:
    """The three panels of a run: shipped, or fresh from ``panel_seed``, maybe cut short."""
    out: dict[str, Panel] = {}
    for name in PANELS:
        if config.panel_seed is None:
            panel = shipped_panel(name, config.env)
        else:
            panel = fresh_panel(name, config.panel_seed, config.env)
        if config.panel_tasks is not None:
            step = max(1, len(panel.tasks) // config.panel_tasks)
            panel = Panel(name=f"{panel.name}-{config.panel_tasks}", tasks=panel.tasks[::step][: config.panel_tasks])
        out[name] = panel
    return out


def load(config: RunConfig) -> LocalModel:
    """The run's model with fresh adapters."""
    return LocalModel.load(
        config.model, config.weights, config.seed,
        dtype=config.dtype, window=config.window, keep_reasoning=config.keep_reasoning,
    )  # fmt: skip


def environment(config: RunConfig) -> dict[str, Any]:
    """What the figures depend on besides the config."""
    names = ("hiplan", "torch", "transformers", "peft", "accelerate", "numpy")
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": config.threads,
        "versions": {name: version(name) for name in names},
    }


def parameters(weights: RoleWeights) -> dict[str, int]:
    """How many there are, and how many of them ever learn."""
    trained = {id(p): p.numel() for role in ROLES for p in weights.parameters(role).values()}
    every = {id(p): p.numel() for body in weights.bodies for p in body.model.parameters()}
    return {"total": sum((every | trained).values()), "trained": sum(trained.values())}


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """A run's metric rows. Raises ``ConfigError`` where there are none."""
    if not (folder / "metrics.jsonl").is_file():
        raise ConfigError(f"no run at {str(folder)!r}; expected a folder with metrics.jsonl")
    return read_rows(folder / "metrics.jsonl")
