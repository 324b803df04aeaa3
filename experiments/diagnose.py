"""Diagnostics of finished runs: is the plan used, is it any good, and what do revisions cost? See docs/diagnostics.md.

Two studies on the stages that runs have written: ``diagnose`` (reliance, cross-play, overlap, judge, deviations; before
and after training) and ``policies`` (when to revise and how to choose among candidate plans).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from experiments.cells import Cell, run_cells
from experiments.job import PANELS, costs, panels
from experiments.measure import as_trained
from experiments.settings import read_run
from experiments.tables import (
    AFTER,
    BEFORE,
    DEFAULT,
    cross_section,
    deviation_section,
    policy_section,
    reliance_sections,
)  # fmt: skip
from hiplan.coordination import Candidates, Limits, ReplanPolicy, by_executor, by_judge, by_rehearsal, policy
from hiplan.coordination.candidates import Choose
from hiplan.envs import make_env
from hiplan.errors import ConfigError
from hiplan.evaluation import (
    TEMPERATURES,
    EvalResult,
    cost,
    cross_play,
    deviations,
    evaluate,
    judged,
    overlap,
    reliance,
)  # fmt: skip
from hiplan.evaluation import Cell as Measured
from hiplan.executors import Executor
from hiplan.model import Decoding
from hiplan.models.stages import load_stage, read_stage
from hiplan.planners import Planner, PlannerProtocol
from hiplan.prompts import Prompts
from hiplan.report.diagnostics import Diagnostics, Section, write_diagnostics
from hiplan.report.html import write_report
from hiplan.task import Task


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, seed, and the stage that is measured."""

    folder: Path
    seed: int
    stage: Path

    @staticmethod
    def read(folder: Path, stage: str) -> Run:
        """Raises ``ConfigError`` where the folder holds no such stage, ``CheckpointError`` where it is broken."""
        config, path = read_run(folder), folder / "stages" / stage
        if not (path / "stage.json").is_file():
            known = sorted(p.parent.name for p in folder.glob("stages/*/stage.json"))
            raise ConfigError(f"no stage {stage!r} in {str(folder)!r}; expected one of {', '.join(known) or 'none'}")
        read_stage(path)
        return Run(folder, config.seed, path)

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.resolve().name

    @property
    def digest(self) -> str:
        """Of the stage's weights."""
        files = sorted(self.stage.rglob("*.safetensors"))
        return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:12]

    @property
    def conditions(self) -> dict[str, Any]:
        """What else its episodes depend on: the base and how it is read, tasks, turns, tokens, revisions."""
        known = json.loads((self.stage / "stage.json").read_text())
        about = {key: known["about"].get(key) for key in ("env", "eval_turns")}
        about["revise"] = known["about"].get("revise", "on_failure")  # what stages that do not say it had
        decoding = known["about"].get("decoding") or {}
        about |= {key: decoding.get(key) for key in ("plan_tokens", "action_tokens")}
        return {key: known.get(key) for key in ("base", "loaded_with")} | about


def read_runs(folders: Sequence[Path], stage: str) -> list[Run]:
    """Raises ``ConfigError`` where they cannot be compared."""
    runs = [Run.read(folder, stage) for folder in folders]
    for run in runs[1:]:
        for key, value in run.conditions.items():
            if value != (first := runs[0].conditions[key]):
                raise ConfigError(
                    f"{str(run.folder)!r} differs from {str(runs[0].folder)!r} in {key} ({value!r}, not {first!r}); "
                    "give runs that differ in their seed"
                )
    return runs


@dataclass(frozen=True)
class Setting:
    """What all cells share: tasks and decoding. Plain values, so that it crosses to other processes."""

    panel: str
    tasks: int | None
    decoding: str
    seed: int = 0

    def of(self, stage: str) -> tuple[Sequence[Task], Decoding, ReplanPolicy, Limits, str]:
        """Tasks, decoding, when plans are revised, limits, and the panel's hash, as the stage was trained for."""
        config = as_trained(Path(stage), panel_tasks=self.tasks)
        panel = panels(config)[self.panel]  # type: ignore[index]
        decoding, limits = config.train.decoding(TEMPERATURES[self.decoding]), Limits(turns=config.eval_turns)
        return panel.tasks, decoding, policy.POLICIES[config.train.revise], limits, panel.hash


# -- cells --------------------------------------------------------------------------------------


def measure_reliance(stage: str, when: str, setting: dict[str, Any]) -> dict[str, Any]:
    """One model under every condition."""
    tasks, decoding, revise, limits, panel = Setting(**setting).of(stage)
    model = load_stage(Path(stage), when == AFTER)
    results = reliance(model, tasks, make_env, decoding, seed=setting["seed"], policy=revise, limits=limits)
    own = results["own"].episodes
    shares = [share for e in own if (share := overlap(e)) is not None]
    return {
        "panel": panel,
        "results": {name: described(result) for name, result in results.items()},
        "judged": judged(own, make_env),
        "overlap": fmean(shares) if shares else None,
        "deviations": [[place, str(verdict), n] for (place, verdict), n in sorted(deviations(own).items())],
    }


def reliance_cell(run: Run, when: str, setting: Setting, folder: Path) -> Cell:
    """The run's stage, or its base, under every condition."""
    name = f"{setting.panel}-{when}" + (f"-{run.name}" if when == AFTER else "")
    about = vars(setting) | run.conditions | ({"weights": run.digest} if when == AFTER else {})
    arguments = {"stage": str(run.stage), "when": when, "setting": vars(setting)}
    return Cell(folder / f"{name}.json", measure_reliance, arguments, about)


def measure_cross_play(stages: list[str], setting: dict[str, Any]) -> dict[str, Any]:
    """Every planner with every executor."""
    tasks, decoding, revise, limits, panel = Setting(**setting).of(stages[0])
    models = [load_stage(Path(stage)) for stage in stages]
    rows = cross_play(models, tasks, make_env, decoding, seed=setting["seed"], policy=revise, limits=limits)
    return {"panel": panel, "matrix": [[described(result) for result in row] for row in rows]}


def described(result: EvalResult) -> dict[str, Any]:
    """What is kept of a result."""
    return costs(result) | {
        "turns": fmean(cost(e).turns for e in result.episodes),
        "success": result.success,
        "solved": "".join("01"[e.success] for e in result.episodes),
        "adherence": result.adherence,
        "coverage": result.coverage,
        "revisions": fmean(sum(not r.kept and r.plan is not None for r in e.plans[1:]) for e in result.episodes),
    }


Way = Callable[[Prompts, Limits], tuple[PlannerProtocol, ReplanPolicy]]


def revising(when: ReplanPolicy) -> Way:
    return lambda prompts, limits: (Planner(prompts), when)


def choosing(n: int, how: Callable[[Prompts, Limits], Choose]) -> Way:
    return lambda prompts, limits: (Candidates(Planner(prompts), n, how(prompts, limits)), policy.on_failure())


def rehearsing(prompts: Prompts, limits: Limits) -> Choose:
    return by_rehearsal(Executor(prompts), Planner(prompts), limits=limits)


ANY = policy.any_of(
    policy.failed_step, policy.used_up, policy.stuck(), policy.contradicted, policy.off_plan(3), policy.no_progress(5)
)
WAYS: dict[str, Way] = {
    "never": revising(policy.never),
    DEFAULT: revising(policy.on_failure()),
    "every turn (AdaPlan)": revising(policy.every(1)),
    "every 5 turns": revising(policy.every(5)),
    "plan used up": revising(policy.used_up),
    "3 actions off plan": revising(policy.off_plan(3)),
    "5 actions without a step done": revising(policy.no_progress(5)),
    "an assumption contradicted": revising(policy.contradicted),
    "any of these, at most 8": revising(policy.capped(ANY, 8)),
    "any of these, at most 2": revising(policy.capped(ANY, 2)),
    "1 plan at temperature 1": choosing(1, lambda prompts, limits: by_judge),
    "4 plans, executor chooses": choosing(4, lambda prompts, limits: by_executor(prompts)),
    "4 plans, judge chooses": choosing(4, lambda prompts, limits: by_judge),
    "4 plans, rehearsal chooses": choosing(4, rehearsing),
}


def measure_way(stage: str, way: str, setting: dict[str, Any]) -> dict[str, Any]:
    """One way of revising or choosing."""
    tasks, decoding, _, limits, panel = Setting(**setting).of(stage)
    model = load_stage(Path(stage))
    planner, when = WAYS[way](model.prompts, limits)
    cell = Measured(tasks, planner, Executor(model.prompts), decoding)
    (result,) = evaluate(model, [cell], make_env, setting["seed"], when, limits)
    return {"panel": panel, "result": described(result)}


# -- the studies --------------------------------------------------------------------------------


def diagnose(
    folders: Sequence[Path], stage: str, panel_names: Sequence[str], tasks: int | None, decoding: str, out: Path,
    parallel: int, console: Console, command: str,
) -> str:  # fmt: skip
    """Measure; tables, pictures and ``report.html`` go into ``out``. Returns the tables."""
    runs = read_runs(folders, stage)
    cells = {}
    for name in checked(panel_names):
        setting = Setting(name, tasks, decoding)
        cells[name, BEFORE] = reliance_cell(runs[0], BEFORE, setting, out / "cells")
        cells |= {(name, str(run.folder)): reliance_cell(run, AFTER, setting, out / "cells") for run in runs}
        if len(runs) > 1:
            arguments = {"stages": [str(run.stage) for run in runs], "setting": vars(setting)}
            about = vars(setting) | runs[0].conditions | {"weights": [run.digest for run in runs]}
            cells[name, "cross"] = Cell(out / "cells" / f"{name}-cross.json", measure_cross_play, arguments, about)
    found = dict(zip(cells, run_cells(list(cells.values()), parallel, console), strict=True))
    seeds, sections = [run.seed for run in runs], []
    for name in panel_names:
        before = [found[name, BEFORE]]
        after = [found[name, str(run.folder)] for run in runs]
        sections += reliance_sections(name, seeds, before, after, out)
        if len(runs) > 1:
            sections.append(cross_section(name, seeds, found[name, "cross"]["matrix"]))
        sections.append(deviation_section(name, before, after, out))
    return finished("Is the plan used, and is it any good?", sections, out, command, found.values())


def policies(
    folders: Sequence[Path], stage: str, panel_names: Sequence[str], tasks: int | None, decoding: str, out: Path,
    parallel: int, console: Console, command: str,
) -> str:  # fmt: skip
    """As ``diagnose``, for ways to revise and to choose."""
    runs = read_runs(folders, stage)
    cells = {
        (name, way, i): Cell(
            out / "cells" / f"{name}-{place:02d}-{run.name}.json",
            measure_way,
            {"stage": str(run.stage), "way": way, "setting": setting},
            setting | run.conditions | {"way": way, "weights": run.digest},
        )
        for name in checked(panel_names)
        for setting in [vars(Setting(name, tasks, decoding))]
        for place, way in enumerate(WAYS)
        for i, run in enumerate(runs)
    }
    found = dict(zip(cells, run_cells(list(cells.values()), parallel, console), strict=True))
    seeds, sections = [run.seed for run in runs], []
    for name in panel_names:
        by_way = {way: [found[name, way, i]["result"] for i in range(len(runs))] for way in WAYS}
        sections.append(policy_section(name, seeds, by_way))
    return finished("When to revise, and which plan to take", sections, out, command, found.values())


def checked(names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if name not in PANELS:
            raise ConfigError(f"no panel is called {name!r}; expected one of {', '.join(PANELS)}")
    return names


def finished(title: str, sections: list[Section], out: Path, command: str, found: Any) -> str:
    """Write everything into ``out``; returns the tables as Markdown."""
    hashes = sorted({f"{c['about']['panel']} {c['panel']}" for c in found})
    about = f"`{command}`; panels {', '.join(hashes)}; intervals: see each table."
    text = write_diagnostics(out, Diagnostics(title=title, about=about, sections=tuple(sections)))
    write_report(out)
    return text
