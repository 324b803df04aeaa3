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
from statistics import fmean
from typing import Any

import yaml
from rich.console import Console
from rich.progress import Progress

from experiments.cells import COLUMNS, read_kept, run_cells
from experiments.job import PANELS, read_metrics
from experiments.settings import RunConfig, matched, read_run, resolve
from experiments.tables import points, spread
from hiplan.errors import ConfigError
from hiplan.training.checkpoint import write_text

HERE = Path(__file__).resolve().parent
Summary = dict[str, Any]
SEARCH_SEED = 100  # learning rates are chosen with a seed of their own


@dataclass(frozen=True)
class Arm:
    """One way to train. ``set``: its overrides; ``config``: a file below them; ``agent``: what is measured at the end.

    ``match``: takes as many environment steps as this arm's run of the same seed.
    """

    label: str
    set: tuple[str, ...] = ()
    config: str | None = None
    agent: str = "plan"
    match: str | None = None


@dataclass(frozen=True)
class Study:
    """``arms``: the first is what others are compared with. ``set``: overrides for every cell.

    ``rates``: factors on the stages' learning rates that each arm tries, chosen on dev with a seed of its own.
    ``stages``: those whose evaluations are shown. ``reliance``: the panel on which the last stage is measured under
    different plans instead.
    """

    title: str
    arms: dict[str, Arm]
    set: tuple[str, ...] = ()
    rates: tuple[float, ...] = ()
    stages: tuple[str, ...] = ("final",)
    reliance: str | None = None


SMALL = (  # an equal budget of environment steps, whatever the arms do with it; a cell takes 2 to 4 minutes
    "train.stages.executor.env_steps=1000",
    "train.stages.executor.iterations=1000",
    "train.stages.planner.env_steps=3000",
    "train.stages.planner.iterations=1000",
    "train.stages.joint.env_steps=6000",
    "train.stages.joint.iterations=1000",
    "panel_tasks=48",
    "decodings=[greedy]",
    "agents=[plan]",
    "stage_panels=[train,dev,heldout]",
)


SHOWN_FIRST = ("train.warm_start=256",)  # oracle episodes in which the planner is asked as it will be


def poor_plans(adherence: float, guard: str = "none") -> tuple[str, ...]:
    """An executor that learns under the plans of an untrained planner, rewarded for following them."""
    stage = "name: executor, trains: [executor], plans: self, no_plan: 0.15, learning_rate: 1.0e-3"
    rewards = f"adherence: {adherence}, guard: {guard}"
    return (f"train.stages=[{{{stage}, iterations: 1000, env_steps: 2500, rewards: {{{rewards}}}}}]",)


STUDIES = {
    "baselines": Study(
        "Three stages against two baselines with the same number of environment steps",
        {
            "main": Arm("three stages, split weights"),
            "rejection": Arm("rejection-sampling fine-tuning", config="rejection.yaml", match="main"),
            "react-grpo": Arm("ReAct + GRPO (never a plan)", config="react-grpo.yaml", agent="none", match="main"),
        },
    ),
    "weights": Study(
        "Shared or split weights",
        {
            "split": Arm("split, rank 8 each", ("weights.mode=split", "weights.lora={rank: 8, alpha: 16}")),
            "joint": Arm("joint, rank 8", ("weights.mode=joint", "weights.lora={rank: 8, alpha: 16}")),
            "joint-2r": Arm("joint, rank 16", ("weights.mode=joint", "weights.lora={rank: 16, alpha: 32}")),
            "partial": Arm("partial, 8 shared + 8 each", ("weights.mode=partial", "weights.lora={rank: 8, alpha: 16}")),
            "separate": Arm("separate, rank 8 each", ("weights.mode=separate", "weights.lora={rank: 8, alpha: 16}")),
        },
        set=SMALL,
        rates=(0.5, 1.0, 2.0),
        stages=("executor", "planner", "final"),
    ),
    "revise": Study(
        "When plans are revised, in training and after it",
        {
            "on_failure": Arm("on failure", ("train.revise=on_failure",)),
            "every_turn": Arm("every turn (AdaPlan)", ("train.revise=every_turn",)),
            "never": Arm("never", ("train.revise=never",)),
            "on_failure-shown": Arm("on failure, shown first", ("train.revise=on_failure", *SHOWN_FIRST)),
            "every_turn-shown": Arm("every turn (AdaPlan), shown first", ("train.revise=every_turn", *SHOWN_FIRST)),
        },
        set=SMALL,
        stages=("executor", "planner", "final"),
    ),
    "guard": Study(
        "Rewarding adherence under the plans of an untrained planner",
        {
            "off": Arm("no adherence reward", poor_plans(0.0)),
            "none": Arm("adherence, no guard", poor_plans(0.5, "none")),
            "success": Arm("adherence if it succeeds", poor_plans(0.5, "success")),
            "either": Arm("adherence if it succeeds or the judge passes the plan", poor_plans(0.5, "either")),
        },
        set=("panel_tasks=48", "decodings=[greedy]", "agents=[plan]"),
        reliance="train",
    ),
}  # fmt: skip


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
        from experiments.diagnose import AFTER, Run, Setting, reliance_cell

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
    """The evaluation at the decoding that is best on dev (train and held-out panels are measured at that one alone)."""
    found = [e for e in summary["evals"] if (e["stage"], e["panel"], e["agent"]) == (stage, panel, agent)]
    if not found:
        raise ConfigError(f"the run of {summary['arm']} has no evaluation of {agent} on {panel} after {stage}")
    best: Summary = max(found, key=lambda e: e["success"]) if panel == "dev" else found[-1]
    return best


def value(summary: Summary, stage: str, panel: str, agent: str) -> float:
    return float(evaluation(summary, stage, panel, agent)["success"])


def paired_points(one: Sequence[Summary], other: Sequence[Summary], stage: str, panel: str) -> list[float]:
    """Per seed, the mean over tasks of the difference in success on the same task, in points."""
    out = []
    for a, b in zip(one, other, strict=True):
        left, right = (evaluation(s, stage, panel, "plan")["solved"] for s in (a, b))
        out.append(100 * fmean(int(x) - int(y) for x, y in zip(left, right, strict=True)))
    return out


# -- the report ---------------------------------------------------------------------------------


def results(study: Study, cells: Sequence[Summary], seeds: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """A row per arm, stage and panel: every seed, mean with t-interval, and the paired difference to the first arm."""
    head = ["weights" if study.rates else "agent", "stage", "panel", *(f"seed {seed}" for seed in seeds)]
    head += ["mean [95 %]", "gain over untrained", f"against {next(iter(study.arms.values())).label}"]
    rows: list[list[str]] = []
    by_arm = {arm: [s for s in cells if s["arm"] == arm and s["seed"] != SEARCH_SEED] for arm in study.arms}
    first = next(iter(by_arm.values()))
    for panel in ("train", "heldout"):
        base = [100 * value(s, "base", panel, "plan") for s in first]
        tried = {e["decoding"] for e in first[0]["evals"] if (e["stage"], e["panel"]) == ("base", "dev")}
        label = "untrained, best decoding" if len(tried) > 1 else "untrained"
        rows.append([label, "", panel, *map(points, base), spread(base), "", ""])
    for arm, known in by_arm.items():
        agent = study.arms[arm].agent
        for stage in study.stages:
            for panel in ("train", "dev", "heldout") if len(study.stages) > 1 else ("train", "heldout"):
                got = [100 * value(s, stage, panel, agent) for s in known]
                base = [100 * value(s, "base", panel, "plan") for s in first]
                gain = spread([g - b for g, b in zip(got, base, strict=True)], signed=True)
                same = known is first or agent != "plan"
                against = "" if same else spread(paired_points(known, first, stage, panel), signed=True)
                rows.append([study.arms[arm].label, stage, panel, *map(points, got), spread(got), gain, against])
    return head, rows


SHOWN = ("own", "own, fixed", "swapped", "none", "oracle")


def reliance_rows(study: Study, cells: Sequence[Summary], seeds: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """A row per arm and plan: success of every seed, how far the plan was followed, the difference to the first arm."""
    head = ["executor trained with", "plan", *(f"seed {seed}" for seed in seeds), "mean [95 %]"]
    head += ["actions on plan", f"against {next(iter(study.arms.values())).label}"]
    rows = []
    for condition in SHOWN:
        first: list[Summary] = []
        for arm, one in study.arms.items():
            known = [s["reliance"]["results"][condition] for s in cells if s["arm"] == arm]
            first = first or known
            got = [100 * r["success"] for r in known]
            followed = [100 * r["adherence"] for r in known if r["adherence"] is not None]
            pairs = zip(known, first, strict=True)
            gaps = [
                100 * fmean(int(x) - int(y) for x, y in zip(a["solved"], b["solved"], strict=True)) for a, b in pairs
            ]
            against = "" if known is first else spread(gaps, signed=True)
            rows.append(
                [one.label, condition, *map(points, got), spread(got), spread(followed) if followed else "", against]
            )
    return head, rows


def cost_rows(study: Study, cells: Sequence[Summary], chosen: dict[str, float]) -> tuple[list[str], list[list[str]]]:
    """What each arm took: parameters, environment steps, time and memory."""
    head = ["weights" if study.rates else "agent", "trained parameters", "learning rates", "environment steps"]
    head += ["seconds a run", "peak memory, MB"]
    told = all("calls" in e for s in cells for e in s["evals"])  # older runs did not count
    head += ["model calls an episode (train)", "tokens read", "tokens written"] if told else []
    rows = []
    for arm, one in study.arms.items():
        known = [s for s in cells if s["arm"] == arm and s["seed"] != SEARCH_SEED]
        steps, wall, memory = (fmean(s[key] for s in known) for key in ("env_steps", "wall_s", "memory_mb"))
        parameters = f"{known[0]['parameters']['trained']:,}"
        row = [one.label, parameters, f"x {chosen[arm]:g}", f"{steps:,.0f}", f"{wall:.0f}", f"{memory:.0f}"]
        last = [evaluation(s, study.stages[-1], "train", one.agent) for s in known]
        rows.append(row + [f"{fmean(e[key] for e in last):,.1f}" for key in ("calls", "read", "written") if told])
    return head, rows


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(study: Study, cells: Sequence[Summary], path: Path) -> None:
    """Success after the last stage on the train and held-out panels: seeds as dots, means as bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.55 * len(study.arms)), layout="constrained")
    for axes, panel, title in zip(
        figure.subplots(1, 2, sharey=True), ("train", "heldout"), ("training distribution", "held out"), strict=True
    ):
        for place, (arm, one) in enumerate(study.arms.items()):
            known = [s for s in cells if s["arm"] == arm and s["seed"] != SEARCH_SEED]
            got = [100 * value(s, study.stages[-1], panel, one.agent) for s in known]
            axes.barh(place, fmean(got), height=0.6, color="#b8c9de", edgecolor="#42607f")
            axes.plot(got, [place] * len(got), "o", color="#1d3349", markersize=5)
        base = fmean(100 * value(s, "base", panel, "plan") for s in cells if s["arm"] == next(iter(study.arms)))
        axes.axvline(base, color="#a33", linestyle="--", linewidth=1)
        axes.text(base, -0.75, " untrained", color="#a33", fontsize=8, va="center")
        axes.set_yticks(range(len(study.arms)), [one.label for one in study.arms.values()])
        axes.set_xlim(0, 100)
        axes.set_xlabel(f"success, % ({title})")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()
    figure.savefig(path, dpi=130)


PAGE = """<!doctype html><meta charset="utf-8"><title>{{ title }}</title>
<style>body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b2733}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .7rem;border-bottom:1px solid #d5dde5;text-align:left}
img{max-width:100%}code,pre{background:#f2f5f8;padding:.1rem .3rem}.wide{overflow-x:auto}</style>
<h1>{{ title }}</h1><p>{{ about }}</p><p><code>{{ command }}</code></p>
<img alt="Success per arm; dots are seeds" src="data:image/png;base64,{{ picture }}">
{% for heading, head, rows in tables %}<h2>{{ heading }}</h2><div class="wide"><table>
<tr>{% for h in head %}<th>{{ h }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</table></div>{% endfor %}
"""


def report(
    study: Study,
    cells: Sequence[Summary],
    chosen: dict[str, float],
    seeds: Sequence[int],
    out: Path,
    command: str,
) -> str:
    """Write ``table.md``, ``picture.png`` and ``report.html``; returns the table's text."""
    import base64

    from jinja2 import Environment

    out.mkdir(parents=True, exist_ok=True)
    known = sorted(cells[-1]["panels"].values(), key=lambda p: PANELS.index(p["panel"]))
    panels = ", ".join(f"{p['panel']} {p['hash']} ({p['tasks']} tasks)" for p in known)
    rates = f" Learning rates chosen on the dev panel with seed {SEARCH_SEED}." if study.rates else ""
    about = f"Panels: {panels}. Intervals: 95 % t over seeds; differences are paired over tasks.{rates}"
    success, costs = results(study, cells, seeds), cost_rows(study, cells, chosen)
    tables = [("Success", *success), ("Cost", *costs)]
    if study.reliance:
        tables.insert(1, (f"Under different plans, {study.reliance} tasks", *reliance_rows(study, cells, seeds)))
    text = "\n\n".join([*(markdown(head, rows) for _, head, rows in tables), about, f"`{command}`"]) + "\n"
    write_text(out / "table.md", text)
    draw(study, cells, out / "picture.png")
    page = Environment(autoescape=True).from_string(PAGE)
    picture = base64.b64encode((out / "picture.png").read_bytes()).decode()
    html = page.render(title=study.title, about=about, command=command, picture=picture, tables=tables)
    write_text(out / "report.html", html)
    return text
