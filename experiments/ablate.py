"""Studies: runs of the main job that differ in a few settings, over seeds, with equal environment steps.

A cell is one run. Its summary is kept as a small JSON file. A study that was stopped skips the cells it has and
continues inside those it had begun.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.studies import SEARCH_SEED, Study
from hiplan.errors import ConfigError
from hiplan.files import read_object
from hiplan.runs.cells import Cell, run_cells
from hiplan.runs.diagnose import Setting, measure_reliance
from hiplan.runs.job import read_metrics
from hiplan.runs.settings import RunConfig, check, matched, read_run, resolve
from hiplan.runs.tables import AFTER

HERE = Path(__file__).resolve().parent
Summary = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run of a study."""

    arm: str
    seed: int
    rate: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.arm}-x{self.rate:g}-{self.seed}" if self.rate != 1 else f"{self.arm}-{self.seed}"


class Ablation:
    """The runs of one study; ``kept`` holds their summaries, ``runs`` their folders. ``make``: what plays one."""

    def __init__(
        self, study: Study, kept: Path, runs: Path, parallel: int, extra: Sequence[str], console: Console,
        make: Callable[..., Summary] | None = None,
    ) -> None:  # fmt: skip
        self.study, self.kept, self.runs, self.extra = study, kept, runs, tuple(extra)
        self.parallel, self.console, self.make = parallel, console, make or play

    def all(self, seeds: Sequence[int]) -> tuple[list[Summary], dict[str, float]]:
        """Every summary, and each arm's chosen learning-rate factor."""
        arms = self.study.arms
        tried = [Run(arm, SEARCH_SEED, rate) for arm in arms for rate in self.study.rates]
        searched = self.made(tried, {})
        chosen = {arm: best_rate([s for s in searched if s["arm"] == arm]) for arm in arms}
        wanted = [Run(arm, seed, chosen[arm]) for arm in arms for seed in seeds]
        first = [run for run in wanted if not arms[run.arm].match]
        done = dict(zip(first, self.made(first, {}), strict=True))
        steps = {(run.arm, run.seed): summary["env_steps"] for run, summary in done.items()}
        then = [run for run in wanted if run not in done]  # these take as many environment steps as another
        done |= dict(zip(then, self.made(then, steps), strict=True))
        return [*searched, *(done[run] for run in wanted)], chosen

    def made(self, runs: Sequence[Run], steps: Mapping[tuple[str, int], int]) -> list[Summary]:
        """The runs' summaries; a stopped run continues."""
        return run_cells([self.cell(run, steps) for run in runs], self.parallel, self.console, fresh=True)

    def cell(self, run: Run, steps: Mapping[tuple[str, int], int]) -> Cell:
        settings = self.settings(run)
        if match := self.study.arms[run.arm].match:
            settings = matched(settings, steps[match, run.seed])
        about = {"arm": run.arm, "seed": run.seed, "rate": run.rate, "settings": settings.model_dump(mode="json")}
        where = {"folder": str(self.runs / run.name), "reliance": self.study.reliance}
        return Cell(self.kept / f"{run.name}.json", self.make, about | where, about)

    def settings(self, run: Run) -> RunConfig:
        arm = self.study.arms[run.arm]
        config = HERE / "configs" / arm.config if arm.config else None
        given = [*self.study.set, *arm.set, "threads=1", *self.extra]
        known = resolve(config, given, seed=run.seed)
        stages = [s.model_copy(update={"learning_rate": run.rate * s.learning_rate}) for s in known.train.stages]
        return known.model_copy(update={"train": known.train.model_copy(update={"stages": tuple(stages)})})


def play(
    arm: str, seed: int, rate: float, settings: dict[str, Any], folder: str, reliance: str | None = None
) -> Summary:
    """Run the main job with these settings in ``folder``, or what is left of it; what a study needs of it."""
    from hiplan.runs.job import Job

    config, out = check(settings, RunConfig), Path(folder)
    if (out / "config.yaml").is_file() and read_run(out) != config:
        raise ConfigError(f"the run {folder!r} was made with other settings; delete it, or give another --out")
    if not (out / "report.html").is_file():
        out.mkdir(parents=True, exist_ok=True)
        with (out / "log.txt").open("a", encoding="utf-8") as log:
            Job(config, out, Console(file=log, width=160)).run()
    return summarize(out, config, {"arm": arm, "seed": seed, "rate": rate}, reliance)


def summarize(folder: Path, config: RunConfig, run: Summary, panel: str | None) -> Summary:
    """What a study needs of a run; ``panel``: that on which its last stage is measured under different plans."""
    rows = read_metrics(folder)
    found = run | {
        "panels": read_object(folder / "panels.json"),
        "parameters": fact(folder / "environment.json", "parameters"),
        "env_steps": max((row.get("env_steps") or 0 for row in rows if row["kind"] == "train"), default=0),
        "evals": [row for row in rows if row["kind"] == "eval"],
        "wall_s": fact(folder / "times.json", "wall_s"),
        "memory_mb": fact(folder / "times.json", "memory_mb"),
    }
    if panel:
        stage = folder / "stages" / config.train.stages[-1].name
        setting = Setting(panel, config.panel_tasks, config.decodings[0])
        measured = measure_reliance(str(stage), AFTER, vars(setting))
        found["reliance"] = {key: measured[key] for key in ("panel", "results")}
    return found


def fact(file: Path, key: str) -> Any:
    """What a file of a run says. Raises ``ConfigError`` where it does not say so."""
    known = read_object(file)
    if key not in known:
        raise ConfigError(
            f"{str(file)!r} does not say {key!r}; delete the report.html beside it, and the run writes both again"
        )
    return known[key]


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
