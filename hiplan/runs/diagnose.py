"""Two studies of finished runs: plan use and plan quality, and replanning. docs/diagnostics.md explains the results.

``diagnose`` measures reliance, cross-play, overlap, judge scores and deviations, before and after training.
``policies`` compares replan policies and ways to choose among candidate plans.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, cast

from rich.console import Console

from hiplan.coordination import Candidates, Limits, ReplanPolicy, by_executor, by_judge, by_rehearsal, replan
from hiplan.coordination.candidates import Choose
from hiplan.envs import suite
from hiplan.envs.tasks import PanelName
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
from hiplan.files import read_object
from hiplan.loading import load_agent, stage_facts
from hiplan.models.stages import read_stage
from hiplan.planners import Planner, PlannerProtocol
from hiplan.prompts import Prompts
from hiplan.report.diagnostics import Diagnostics, Section, write_diagnostics
from hiplan.report.html import write_report
from hiplan.runs.cells import Cell, run_cells
from hiplan.runs.job import costs
from hiplan.runs.measure import PANELS, as_trained, panels
from hiplan.runs.settings import read_run
from hiplan.runs.tables import (
    AFTER,
    BEFORE,
    DEFAULT,
    cross_section,
    deviation_section,
    policy_sections,
    reliance_sections,
)  # fmt: skip
from hiplan.sampler import Sampler
from hiplan.task import Task


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its seed, and the stage to evaluate."""

    folder: Path
    seed: int
    stage: Path

    @staticmethod
    def read(folder: Path, stage: str) -> Run:
        """Raises ``ConfigError`` if the run has no such stage, and ``CheckpointError`` if the stage is damaged."""
        config, path = read_run(folder), folder / "stages" / stage
        if not (path / "stage.json").is_file():
            known = sorted(p.parent.name for p in folder.glob("stages/*/stage.json"))
            raise ConfigError(f"no stage {stage!r} in {str(folder)!r}; expected one of {', '.join(known) or 'none'}")
        read_stage(path)
        return Run(folder, config.seed, path)

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.folder.resolve().name

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the stage's weights."""
        files = sorted(self.stage.rglob("*.safetensors"))
        return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:12]

    @property
    def conditions(self) -> dict[str, Any]:
        """What else the episodes depend on: the base model and how it is loaded, tasks, limits, and replan policy."""
        known, facts = read_object(self.stage / "stage.json"), stage_facts(self.stage)
        about = {key: facts.get(key) for key in ("env", "eval_turns")}
        about["replan"] = facts.get("replan", facts.get("revise", "on_failure"))  # 0.1.0: revise
        decoding = facts.get("decoding") or {}
        about |= {key: decoding.get(key) for key in ("plan_tokens", "action_tokens")}
        return {key: known.get(key) for key in ("base", "loaded_with")} | about


def read_runs(folders: Sequence[Path], stage: str) -> list[Run]:
    """The runs in ``folders``. Raises ``ConfigError`` if they differ in more than seed and weights."""
    runs = [Run.read(folder, stage) for folder in folders]
    for run in runs[1:]:
        for key, value in run.conditions.items():
            if value != (first := runs[0].conditions[key]):
                raise ConfigError(
                    f"{str(run.folder)!r} differs from {str(runs[0].folder)!r} in {key} ({value!r}, not {first!r}); "
                    "give runs that differ only in their seed"
                )
    return runs


@dataclass(frozen=True)
class Setting:
    """The tasks and decoding of a study, as plain values that can be sent to other processes."""

    panel: str
    tasks: int | None
    decoding: str
    seed: int = 0

    def of(self, stage: str, trained: bool = True) -> tuple[Sampler, Sequence[Task], str]:
        """A sampler with the settings of the stage's run, the tasks, and the panel's hash."""
        config = as_trained(stage_facts(Path(stage)), panel_tasks=self.tasks)
        make_env = suite(config.env).make_env
        agent = load_agent(stage, make_env=make_env, temperature=TEMPERATURES[self.decoding], trained=trained)
        panel = panels(config)[cast(PanelName, self.panel)]
        return agent.sampler, panel.tasks, panel.hash


# -- cells --------------------------------------------------------------------------------------


def measure_reliance(stage: str, when: str, setting: dict[str, Any]) -> dict[str, Any]:
    """The cell function of ``reliance_cell``."""
    sampler, tasks, panel = Setting(**setting).of(stage, when == AFTER)
    results = reliance(sampler, tasks, seed=setting["seed"])
    if "own" not in results:
        raise ConfigError(
            f"the {when} planner of {stage!r} wrote no plan that parses in {len(tasks)} tasks; diagnose a stage with "
            "plans"
        )
    own = results["own"].episodes
    shares = [share for e in own if (share := overlap(e)) is not None]
    return {
        "panel": panel,
        "results": {name: summarized(result) for name, result in results.items()},
        "judged": judged(own, sampler.make_env),
        "overlap": fmean(shares) if shares else None,
        "deviations": [[place, str(verdict), n] for (place, verdict), n in sorted(deviations(own).items())],
    }


def reliance_cell(run: Run, when: str, setting: Setting, folder: Path) -> Cell:
    """Evaluate the run's stage, or its untrained model, under each of ``CONDITIONS``."""
    name = f"{setting.panel}-{when}" + (f"-{run.name}" if when == AFTER else "")
    about = vars(setting) | run.conditions | ({"weights": run.digest} if when == AFTER else {})
    arguments = {"stage": str(run.stage), "when": when, "setting": vars(setting)}
    return Cell(folder / f"{name}.json", measure_reliance, arguments, about)


def measure_cross_play(stages: list[str], setting: dict[str, Any]) -> dict[str, Any]:
    """Evaluate the planner of each stage with the executor of each."""
    known = [Setting(**setting).of(stage) for stage in stages]
    _, tasks, panel = known[0]
    rows = cross_play([sampler for sampler, _, _ in known], tasks, seed=setting["seed"])
    return {"panel": panel, "matrix": [[summarized(result) for result in row] for row in rows]}


def summarized(result: EvalResult) -> dict[str, Any]:
    """The numbers of a result that a cell stores."""
    return costs(result) | {
        "turns": fmean(cost(e).turns for e in result.episodes),
        "success": result.success,
        "solved": "".join("01"[e.success] for e in result.episodes),
        "adherence": result.adherence,
        "coverage": result.coverage,
        "revisions": fmean(e.revisions() for e in result.episodes),
    }


PlanningPolicy = Callable[[Prompts, Limits], tuple[PlannerProtocol, ReplanPolicy]]
"""Makes a planner and a replan policy for a model's prompts and limits."""


def revising(when: ReplanPolicy) -> PlanningPolicy:
    """One first plan, revised by the replan policy ``when``."""
    return lambda prompts, limits: (Planner(prompts), when)


def choosing(n: int, how: Callable[[Prompts, Limits], Choose]) -> PlanningPolicy:
    """The best of ``n`` first plans by ``how``, revised on failure."""
    return lambda prompts, limits: (Candidates(Planner(prompts), n, how(prompts, limits)), replan.on_failure())


def rehearsing(prompts: Prompts, limits: Limits) -> Choose:
    """Choose by a rehearsal with the model's own roles."""
    return by_rehearsal(Executor(prompts), Planner(prompts), limits=limits)


ANY = replan.any_of(
    replan.failed_step, replan.used_up, replan.stuck(), replan.contradicted, replan.off_plan(3), replan.no_progress(5)
)
POLICIES: dict[str, PlanningPolicy] = {
    "never": revising(replan.never),
    DEFAULT: revising(replan.on_failure()),
    "every turn (AdaPlan)": revising(replan.every(1)),
    "every 5 turns": revising(replan.every(5)),
    "plan used up": revising(replan.used_up),
    "3 actions off plan": revising(replan.off_plan(3)),
    "5 actions without a step done": revising(replan.no_progress(5)),
    "an assumption contradicted": revising(replan.contradicted),
    "any of these, at most 8": revising(replan.capped(ANY, 8)),
    "any of these, at most 2": revising(replan.capped(ANY, 2)),
    "1 plan at temperature 1": choosing(1, lambda prompts, limits: by_judge),
    "4 plans, executor chooses": choosing(4, lambda prompts, limits: by_executor(prompts)),
    "4 plans, judge chooses": choosing(4, lambda prompts, limits: by_judge),
    "4 plans, rehearsal chooses": choosing(4, rehearsing),
}


def measure_policy(stage: str, policy: str, setting: dict[str, Any]) -> dict[str, Any]:
    """Evaluate one of ``POLICIES``."""
    sampler, tasks, panel = Setting(**setting).of(stage)
    planner, when = POLICIES[policy](sampler.model.prompts, sampler.limits)
    sampler = replace(sampler, replan=when)
    (result,) = evaluate(sampler, [Measured(tasks, planner, sampler.executor, sampler.decoding)], setting["seed"])
    return {"panel": panel, "result": summarized(result)}


# -- the studies --------------------------------------------------------------------------------


def diagnose(
    folders: Sequence[Path], stage: str, panel_names: Sequence[str], tasks: int | None, decoding: str, out: Path,
    parallel: int, console: Console, command: str,
) -> str:  # fmt: skip
    """Run the study of plan use; write tables, figures and ``report.html`` to ``out``; return the tables as Markdown.

    Raises ``ConfigError`` for runs that cannot be compared and for unknown panels or stages.
    """
    runs = read_runs(folders, stage)
    cells = {}
    for name in check_panels(panel_names):
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
            sections.append(cross_section(name, seeds, found[name, "cross"]))
        sections.append(deviation_section(name, before, after, out))
    return write_study("Does the agent use its plan, and does it help?", sections, out, command, found.values())


def policies(
    folders: Sequence[Path], stage: str, panel_names: Sequence[str], tasks: int | None, decoding: str, out: Path,
    parallel: int, console: Console, command: str,
) -> str:  # fmt: skip
    """Run the study of replanning; arguments and result are those of ``diagnose``."""
    runs = read_runs(folders, stage)
    cells = {
        (name, policy, i): Cell(
            out / "cells" / f"{name}-{place:02d}-{run.name}.json",
            measure_policy,
            {"stage": str(run.stage), "policy": policy, "setting": setting},
            setting | run.conditions | {"way": policy, "weights": run.digest},  # the key of stored cells
        )
        for name in check_panels(panel_names)
        for setting in [vars(Setting(name, tasks, decoding))]
        for place, policy in enumerate(POLICIES)
        for i, run in enumerate(runs)
    }
    found = dict(zip(cells, run_cells(list(cells.values()), parallel, console), strict=True))
    seeds, sections = [run.seed for run in runs], []
    for name in panel_names:
        by_policy = {policy: [found[name, policy, i] for i in range(len(runs))] for policy in POLICIES}
        sections += policy_sections(name, seeds, by_policy)
    return write_study("When to revise, and which candidate plan to use", sections, out, command, found.values())


def check_panels(names: Sequence[str]) -> Sequence[str]:
    """The names. Raises ``ConfigError`` for an unknown one."""
    for name in names:
        if name not in PANELS:
            raise ConfigError(f"unknown panel {name!r}; expected one of {', '.join(PANELS)}")
    return names


def write_study(title: str, sections: list[Section], out: Path, command: str, found: Any) -> str:
    """Write tables and ``report.html`` to ``out``; return the tables as Markdown."""
    hashes = sorted({f"{c['about']['panel']} {c['panel']}" for c in found})
    about = f"`{command}`; panels {', '.join(hashes)}; intervals: see each table."
    text = write_diagnostics(out, Diagnostics(title=title, about=about, sections=tuple(sections)))
    write_report(out)
    return text
