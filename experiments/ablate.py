"""Studies: runs of the main job that differ in a few settings, over seeds, with equal environment steps.

A cell is one run; its summary is stored as a small JSON file. A stopped study skips finished cells and resumes the
started runs.
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
    """One run of a study; ``rate`` is a factor on the learning rates."""

    arm: str
    seed: int
    rate: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.arm}-x{self.rate:g}-{self.seed}" if self.rate != 1 else f"{self.arm}-{self.seed}"


class Ablation:
    """The runs of one study: their summaries are stored in ``summaries``, their folders in ``runs``.

    ``extra``: further overrides for every run. ``make``: the function that computes a summary; default: ``play``.
    """

    def __init__(
        self, study: Study, summaries: Path, runs: Path, parallel: int, extra: Sequence[str], console: Console,
        make: Callable[..., Summary] | None = None,
    ) -> None:  # fmt: skip
        self.study, self.summaries, self.runs, self.extra = study, summaries, runs, tuple(extra)
        self.parallel, self.console, self.make = parallel, console, make or play

    def all(self, seeds: Sequence[int]) -> tuple[list[Summary], dict[str, float]]:
        """Run the study: all summaries, and the learning-rate factor chosen for each arm."""
        arms = self.study.arms
        tried = [Run(arm, SEARCH_SEED, rate) for arm in arms for rate in self.study.rates]
        searched = self.run_all(tried, {})
        chosen = {arm: best_rate([s for s in searched if s["arm"] == arm]) for arm in arms}
        wanted = [Run(arm, seed, chosen[arm]) for arm in arms for seed in seeds]
        first = [run for run in wanted if not arms[run.arm].match]
        done = dict(zip(first, self.run_all(first, {}), strict=True))
        steps = {(run.arm, run.seed): summary["env_steps"] for run, summary in done.items()}
        then = [run for run in wanted if run not in done]  # these match the environment steps of another arm
        done |= dict(zip(then, self.run_all(then, steps), strict=True))
        return [*searched, *(done[run] for run in wanted)], chosen

    def run_all(self, runs: Sequence[Run], steps: Mapping[tuple[str, int], int]) -> list[Summary]:
        """The summaries of the runs. ``steps``: environment steps by (arm, seed), for arms that match another."""
        return run_cells([self.cell(run, steps) for run in runs], self.parallel, self.console, fresh=True)

    def cell(self, run: Run, steps: Mapping[tuple[str, int], int]) -> Cell:
        settings = self.settings(run)
        if match := self.study.arms[run.arm].match:
            settings = matched(settings, steps[match, run.seed])
        about = {"arm": run.arm, "seed": run.seed, "rate": run.rate, "settings": settings.model_dump(mode="json")}
        where = {"folder": str(self.runs / run.name), "reliance": self.study.reliance}
        return Cell(self.summaries / f"{run.name}.json", self.make, about | where, about)

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
    """Run the main job in ``folder``, or resume it there, and return the summary.

    Raises ``ConfigError`` if the folder has a run with other settings.
    """
    from hiplan.runs.job import Job

    config, out = check(settings, RunConfig), Path(folder)
    if (out / "config.yaml").is_file() and read_run(out) != config:
        raise ConfigError(
            f"the run {folder!r} was made with other settings; delete it, or choose another folder with --out"
        )
    if not (out / "report.html").is_file():
        out.mkdir(parents=True, exist_ok=True)
        with (out / "log.txt").open("a", encoding="utf-8") as log:
            Job(config, out, Console(file=log, width=160)).run()
    return summarize(out, config, {"arm": arm, "seed": seed, "rate": rate}, reliance)


def summarize(folder: Path, config: RunConfig, run: Summary, panel: str | None) -> Summary:
    """The summary of a run; ``panel``: the panel on which to measure the reliance of its last stage, if any."""
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
    """A fact in a file of a run. Raises ``ConfigError`` if it is missing."""
    known = read_object(file)
    if key not in known:
        raise ConfigError(
            f"{str(file)!r} has no {key!r}; delete report.html in that folder and run the study again to rewrite both"
        )
    return known[key]


def best_rate(tried: Sequence[Summary]) -> float:
    """The factor with the highest success on the dev panel after the last stage; the smallest in a tie."""
    if not tried:
        return 1.0
    ranked = sorted(tried, key=lambda s: s["rate"])
    return float(max(ranked, key=lambda s: value(s, "final", "dev", "plan"))["rate"])


def evaluation(summary: Summary, stage: str, panel: str, agent: str) -> Summary:
    """The evaluation of an agent after a stage: on dev with the best decoding, else with the one evaluated last.

    Raises ``ConfigError`` if the run has none.
    """
    found = [e for e in summary["evals"] if (e["stage"], e["panel"], e["agent"]) == (stage, panel, agent)]
    if not found:
        raise ConfigError(
            f"the run of arm {summary['arm']!r} has no evaluation of agent {agent!r} on panel {panel!r} after stage "
            f"{stage!r}; run that arm again"
        )
    best: Summary = max(found, key=lambda e: e["success"]) if panel == "dev" else found[-1]
    return best


def value(summary: Summary, stage: str, panel: str, agent: str) -> float:
    return float(evaluation(summary, stage, panel, agent)["success"])
