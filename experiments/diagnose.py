"""Diagnostics of finished runs: is the plan used, is it any good, and what do revisions cost? See docs/diagnostics.md.

Two studies on the stages that runs have written: ``diagnose`` (reliance, cross-play, overlap, judge, deviations; before
and after training) and ``policies`` (when to revise and how to choose among candidate plans).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from experiments.cells import Cell, run_cells
from experiments.job import PANELS, panels
from experiments.measure import as_trained
from experiments.settings import RunConfig, read_run
from hiplan.coordination import Candidates, Limits, ReplanPolicy, by_executor, by_judge, by_rehearsal, policy
from hiplan.envs import make_env
from hiplan.errors import ConfigError
from hiplan.evaluation import (
    TEMPERATURES,
    EvalResult,
    correlation,
    cost,
    cross_play,
    deviations,
    evaluate,
    judged,
    overlap,
    paired,
    plan_reliance,
    reliance,
    t_interval,
)
from hiplan.evaluation import Cell as Measured
from hiplan.evaluation.diagnostics import CONDITIONS, USED_UP
from hiplan.executors import Executor
from hiplan.loading import load_model
from hiplan.model import Model
from hiplan.planners import Planner, PlannerProtocol
from hiplan.prompts import Prompts
from hiplan.report.comparisons import draw_deviations, draw_matrix, draw_reliance
from hiplan.report.diagnostics import Diagnostics, Section, write_diagnostics
from hiplan.report.html import write_report
from hiplan.task import Task
from hiplan.trace import Verdict

BEFORE, AFTER = "untrained", "trained"


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, settings, and the stage that is measured."""

    folder: Path
    config: RunConfig
    stage: Path

    @staticmethod
    def read(folder: Path, stage: str) -> Run:
        """Raises ``ConfigError`` where the folder holds no such stage."""
        config, path = read_run(folder), folder / "stages" / stage
        if not (path / "stage.json").is_file():
            known = sorted(p.parent.name for p in folder.glob("stages/*/stage.json"))
            raise ConfigError(f"no stage {stage!r} in {str(folder)!r}; expected one of {', '.join(known) or 'none'}")
        return Run(folder, config, path)

    @property
    def digest(self) -> str:
        """Of the stage's weights."""
        files = sorted(self.stage.rglob("*.safetensors"))
        return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:12]


@dataclass(frozen=True)
class Setting:
    """What all cells share: tasks and decoding. Plain values, so that it crosses to other processes."""

    panel: str
    tasks: int | None
    decoding: str
    seed: int = 0

    def of(self, stage: str) -> tuple[Sequence[Task], Any, Limits, str]:
        """Tasks, decoding, limits, and the panel's hash, as the stage was trained for."""
        config = as_trained(Path(stage), panel_tasks=self.tasks)
        panel = panels(config)[self.panel]  # type: ignore[index]
        limits = Limits(turns=config.eval_turns)
        return panel.tasks, config.train.decoding(TEMPERATURES[self.decoding]), limits, panel.hash


# -- cells --------------------------------------------------------------------------------------


def load(stage: str, when: str) -> Model:
    """The stage's model, or the base that it was trained from."""
    if when == AFTER:
        return load_model(checkpoint=stage)
    return load_model(json.loads((Path(stage) / "stage.json").read_text())["base"])


def measure_reliance(stage: str, when: str, setting: dict[str, Any]) -> dict[str, Any]:
    """One model under every condition."""
    tasks, decoding, limits, panel = Setting(**setting).of(stage)
    results = reliance(load(stage, when), tasks, make_env, decoding, seed=setting["seed"], limits=limits)
    own = results["own"].episodes
    shares = [share for e in own if (share := overlap(e)) is not None]
    return {
        "panel": panel,
        "results": {name: described(result) for name, result in results.items()},
        "judged": judged(results["own, fixed"].episodes, make_env),
        "overlap": fmean(shares) if shares else None,
        "deviations": [[place, str(verdict), n] for (place, verdict), n in sorted(deviations(own).items())],
    }


def reliance_cell(run: Run, when: str, setting: Setting, folder: Path) -> Cell:
    """The run's stage, or its base, under every condition."""
    name = f"{setting.panel}-{when}" + (f"-{run.folder.name}" if when == AFTER else "")
    about = vars(setting) | ({"weights": run.digest} if when == AFTER else {"model": run.config.model})
    arguments = {"stage": str(run.stage), "when": when, "setting": vars(setting)}
    return Cell(folder / f"{name}.json", measure_reliance, arguments, about)


def measure_cross_play(stages: list[str], setting: dict[str, Any]) -> dict[str, Any]:
    """Every planner with every executor."""
    tasks, decoding, limits, panel = Setting(**setting).of(stages[0])
    models = [load(stage, AFTER) for stage in stages]
    rows = cross_play(models, tasks, make_env, decoding, seed=setting["seed"], limits=limits)
    return {"panel": panel, "matrix": [[described(result) for result in row] for row in rows]}


def described(result: EvalResult) -> dict[str, Any]:
    """What is kept of a result."""
    costs = [cost(e) for e in result.episodes]
    every = {key: fmean(getattr(c, key) for c in costs) for key in ("calls", "read", "written", "turns")}
    return every | {
        "success": result.success,
        "solved": "".join("01"[e.success] for e in result.episodes),
        "adherence": result.adherence,
        "coverage": result.coverage,
        "revisions": fmean(sum(not r.kept and r.plan is not None for r in e.plans[1:]) for e in result.episodes),
    }


Way = Callable[[Prompts], tuple[PlannerProtocol, ReplanPolicy]]


def revising(when: ReplanPolicy) -> Way:
    return lambda prompts: (Planner(prompts), when)


def choosing(n: int, how: Callable[[Prompts], Any]) -> Way:
    return lambda prompts: (Candidates(Planner(prompts), n, how(prompts)), policy.on_failure())


ANY = policy.any_of(
    policy.failed_step, policy.used_up, policy.stuck(), policy.contradicted, policy.off_plan(3), policy.no_progress(5)
)
WAYS: dict[str, Way] = {
    "never": revising(policy.never),
    "on failure (default)": revising(policy.on_failure()),
    "every turn (AdaPlan)": revising(policy.every(1)),
    "every 5 turns": revising(policy.every(5)),
    "plan used up": revising(policy.used_up),
    "3 actions off plan": revising(policy.off_plan(3)),
    "5 actions without a step done": revising(policy.no_progress(5)),
    "an assumption contradicted": revising(policy.contradicted),
    "any of these, at most 8": revising(policy.capped(ANY, 8)),
    "any of these, at most 2": revising(policy.capped(ANY, 2)),
    "1 plan at temperature 1": choosing(1, lambda prompts: by_judge),
    "4 plans, executor chooses": choosing(4, by_executor),
    "4 plans, judge chooses": choosing(4, lambda prompts: by_judge),
    "4 plans, rehearsal chooses": choosing(4, lambda prompts: by_rehearsal(Executor(prompts), Planner(prompts))),
}


def measure_way(stage: str, way: str, setting: dict[str, Any]) -> dict[str, Any]:
    """One way of revising or choosing."""
    tasks, decoding, limits, panel = Setting(**setting).of(stage)
    model: Any = load(stage, AFTER)
    planner, when = WAYS[way](model.prompts)
    cell = Measured(tasks, planner, Executor(model.prompts), decoding)
    (result,) = evaluate(model, [cell], make_env, setting["seed"], when, limits)
    return {"panel": panel, "result": described(result)}


# -- the studies --------------------------------------------------------------------------------


def diagnose(
    folders: Sequence[Path], stage: str, panel_names: Sequence[str], tasks: int | None, decoding: str, out: Path,
    parallel: int, console: Console, command: str,
) -> str:  # fmt: skip
    """Measure; tables, pictures and ``report.html`` go into ``out``. Returns the tables."""
    runs = [Run.read(folder, stage) for folder in folders]
    cells = {}
    for name in checked(panel_names):
        setting = Setting(name, tasks, decoding)
        cells[name, BEFORE] = reliance_cell(runs[0], BEFORE, setting, out / "cells")
        cells |= {(name, str(run.folder)): reliance_cell(run, AFTER, setting, out / "cells") for run in runs}
        if len(runs) > 1:
            arguments = {"stages": [str(run.stage) for run in runs], "setting": vars(setting)}
            about = vars(setting) | {"weights": [run.digest for run in runs]}
            cells[name, "cross"] = Cell(out / "cells" / f"{name}-cross.json", measure_cross_play, arguments, about)
    found = dict(zip(cells, run_cells(list(cells.values()), parallel, console), strict=True))
    sections = []
    for name in panel_names:
        before = [found[name, BEFORE]]
        after = [found[name, str(run.folder)] for run in runs]
        sections += reliance_sections(name, runs, before, after, out)
        if len(runs) > 1:
            sections.append(cross_section(name, runs, found[name, "cross"]["matrix"], out))
        sections.append(deviation_section(name, before, after, out))
    return finished("Is the plan used, and is it any good?", sections, out, command, found.values())


def policies(
    folders: Sequence[Path], stage: str, panel_names: Sequence[str], tasks: int | None, decoding: str, out: Path,
    parallel: int, console: Console, command: str,
) -> str:  # fmt: skip
    """As ``diagnose``, for ways to revise and to choose."""
    runs = [Run.read(folder, stage) for folder in folders]
    cells = {
        (name, way, i): Cell(
            out / "cells" / f"{name}-{place:02d}-{run.folder.name}.json",
            measure_way,
            {"stage": str(run.stage), "way": way, "setting": setting},
            setting | {"way": way, "weights": run.digest},
        )
        for name in checked(panel_names)
        for setting in [vars(Setting(name, tasks, decoding))]
        for place, way in enumerate(WAYS)
        for i, run in enumerate(runs)
    }
    found = dict(zip(cells, run_cells(list(cells.values()), parallel, console), strict=True))
    sections = []
    for name in panel_names:
        by_way = {way: [found[name, way, i]["result"] for i in range(len(runs))] for way in WAYS}
        sections.append(policy_section(name, runs, by_way))
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


# -- tables -------------------------------------------------------------------------------------

CONTRASTS = {
    "the right plan instead of another task's": ("own, fixed", "swapped"),
    "its own plan instead of none (uplift)": ("own", "none"),
    "another task's plan instead of none": ("swapped", "none"),
    "the environment's plan instead of its own (headroom)": ("oracle", "own"),
    "its own words instead of synonyms": ("own, fixed", "paraphrased"),
    "revising instead of never": ("own", "own, fixed"),
}
Kept = Mapping[str, Any]


def reliance_sections(
    name: str, runs: Sequence[Run], before: Sequence[Kept], after: Sequence[Kept], out: Path
) -> list[Section]:
    """Success under each condition, and the differences that matter."""
    seeds = [f"seed {run.config.seed}" for run in runs]
    rows = []
    for condition, meaning in CONDITIONS.items():
        was, now = ([c["results"][condition] for c in found] for found in (before, after))
        kept_to = f"{_share(was, 'adherence')} → {_share(now, 'adherence')}"
        steps = f"{_share(was, 'coverage')} → {_share(now, 'coverage')}"
        each = [points(r["success"]) for r in now]
        rows.append([meaning, points(was[0]["success"]), *each, spread([r["success"] for r in now]), kept_to, steps])
    head = ["plan", "untrained", *seeds, "trained: mean [95 %]", "adherence", "steps done"]
    picture = draw_reliance(
        {c: (before[0]["results"][c]["success"], [a["results"][c]["success"] for a in after]) for c in CONDITIONS},
        out / f"reliance-{name}.png",
    )
    main = _section(
        f"Success under different plans, {name} tasks",
        "The same executor on the same tasks. Adherence, steps done: untrained → trained, of episodes with a plan.",
        head,
        rows,
        picture.name,
    )
    differences = [
        [what, *(_difference(found, one, other) for found in (before, after))]
        for what, (one, other) in CONTRASTS.items()
    ]
    owed = [
        [plan_reliance(c["results"]["own, fixed"]["success"], c["results"]["swapped"]["success"]) for c in found]
        for found in (before, after)
    ]
    differences.append(["plan reliance: share of success owed to the right plan", *map(spread, owed)])
    differences.append(["judge's score against uplift, Spearman's rho", *(_rho(found) for found in (before, after))])
    spelled = [[c["overlap"] for c in found if c["overlap"] is not None] for found in (before, after)]
    differences.append(["words of an action that one step of the plan spells out", *map(spread, spelled)])
    note = "Paired by task, 95 % t-intervals: untrained over tasks (one model), trained over seeds."
    return [main, _section(f"What the plan is worth, {name} tasks", note, ["", BEFORE, AFTER], differences)]


def cross_section(name: str, runs: Sequence[Run], matrix: Sequence[Sequence[Kept]], out: Path) -> Section:
    """Planners in rows, executors in columns."""
    seeds = [run.config.seed for run in runs]
    rows = [
        [f"planner of seed {s}", *(points(c["success"]) for c in row)] for s, row in zip(seeds, matrix, strict=True)
    ]
    n = len(matrix)
    gaps = [matrix[i][i]["success"] - fmean([matrix[i][j]["success"] for j in range(n) if j != i]) for i in range(n)]
    note = f"Own executor against the others': {spread(gaps, signed=True)} points, 95 % t-interval over planners."
    picture = draw_matrix([[c["success"] for c in row] for row in matrix], seeds, out / f"cross-{name}.png")
    head = ["", *(f"executor of seed {seed}" for seed in seeds)]
    return _section(f"Roles of different runs, {name} tasks", note, head, rows, picture.name)


def deviation_section(name: str, before: Sequence[Kept], after: Sequence[Kept], out: Path) -> Section:
    """Where episodes leave their plan."""
    totals = []
    for found in (before, after):
        counts: dict[int, dict[str, int]] = {}
        for place, verdict, n in (row for c in found for row in c["deviations"]):
            known = counts.setdefault(min(place, 6), {})
            known[verdict] = known.get(verdict, 0) + n
        totals.append(counts)
    rows = []
    for place in sorted({p for counts in totals for p in counts}, key=lambda p: (p == USED_UP, p)):
        label = "every step done" if place == USED_UP else f"step {place}" + " or later" * (place == 6)
        for when, counts in zip((BEFORE, AFTER), totals, strict=True):
            mine = counts.get(place, {})
            every = sum(mine.values())
            rows.append(
                [label, when, f"{every:,}", *(points(mine.get(v, 0) / every) if every else "–" for v in Verdict)]
            )
    picture = draw_deviations(dict(zip((BEFORE, AFTER), totals, strict=True)), out / f"deviations-{name}.png")
    head = ["whose turn it was", "agent", "actions", *map(str, Verdict)]
    note = "Actions under the agent's own plans by the step whose turn it was; trained: all seeds together."
    return _section(f"Where episodes leave their plan, {name} tasks", note, head, rows, picture.name)


def policy_section(name: str, runs: Sequence[Run], by_way: Mapping[str, Sequence[Kept]]) -> Section:
    """Success and cost of each way, and the paired difference to the default."""
    default = by_way["on failure (default)"]
    rows = []
    for way, results in by_way.items():
        cost_of = [f"{fmean(r[key] for r in results):.{digits}f}" for key, digits in COSTS]
        against = "" if results is default else _paired(results, default)
        rows.append(
            [way, *(points(r["success"]) for r in results), spread([r["success"] for r in results]), against, *cost_of]
        )
    seeds = [f"seed {run.config.seed}" for run in runs]
    head = ["plan is revised", *seeds, "mean [95 %]", "against the default", "revisions", "actions", "model calls"]
    head += ["tokens read", "tokens written"]
    note = (
        "Per episode, rehearsals and plans not taken included; read: each token once, as with a cache. "
        "95 % t-intervals over seeds, differences paired by task."
    )
    return _section(f"Policies, {name} tasks", note, head, rows)


COSTS = (("revisions", 1), ("turns", 1), ("calls", 1), ("read", 0), ("written", 0))


def _section(
    title: str, note: str, head: Sequence[str], rows: Sequence[Sequence[str]], picture: str | None = None
) -> Section:
    return Section(title=title, note=note, head=tuple(head), rows=tuple(map(tuple, rows)), picture=picture)


def points(share: float) -> str:
    return f"{100 * share:.0f} %"


def spread(shares: Sequence[float], signed: bool = False) -> str:
    """Mean and interval in points."""
    known = [share for share in shares if not math.isnan(share)]
    if not known:
        return "–"
    mean, low, high = (100 * x for x in t_interval(known))
    sign = "+" if signed else ""
    return f"{mean:{sign}.0f}" if math.isnan(low) else f"{mean:{sign}.0f} [{low:{sign}.0f}, {high:{sign}.0f}]"


def _share(results: Sequence[Kept], key: str) -> str:
    known = [r[key] for r in results if r[key] is not None]
    return points(fmean(known)) if known else "–"


def _solved(results: Sequence[Kept]) -> list[list[float]]:
    return [[float(x) for x in r["solved"]] for r in results]


def _paired(results: Sequence[Kept], others: Sequence[Kept]) -> str:
    mean, low, high = (100 * x for x in paired(_solved(results), _solved(others)))
    return f"{mean:+.0f} [{low:+.0f}, {high:+.0f}]"


def _difference(found: Sequence[Kept], one: str, other: str) -> str:
    return _paired([c["results"][one] for c in found], [c["results"][other] for c in found])


def _rho(found: Sequence[Kept]) -> str:
    values = []
    for c in found:
        own, none = _solved([c["results"]["own"], c["results"]["none"]])
        values.append(correlation(c["judged"], [x - y for x, y in zip(own, none, strict=True)]))
    known = [v for v in values if not math.isnan(v)]
    if not known:
        return "–"
    mean, low, high = t_interval(known)
    return f"{mean:+.2f}" if math.isnan(low) else f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"
