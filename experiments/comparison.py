"""What a study found: tables, a picture and a page from its cells' summaries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from experiments.ablate import Summary, evaluation, value
from experiments.studies import SEARCH_SEED, Study
from hiplan.report.diagnostics import Diagnostics, Section, write_diagnostics
from hiplan.report.html import write_report
from hiplan.runs.measure import PANELS
from hiplan.runs.tables import points, section, spread


def report(
    study: Study, cells: Sequence[Summary], chosen: dict[str, float], seeds: Sequence[int], out: Path, command: str
) -> str:
    """Write ``table.md``, ``picture.png`` and ``report.html``; returns the tables' text."""
    out.mkdir(parents=True, exist_ok=True)
    known = sorted(cells[-1]["panels"].values(), key=lambda p: PANELS.index(p["panel"]))
    panels = ", ".join(f"{p['panel']} {p['hash']} ({p['tasks']} tasks)" for p in known)
    rates = f" Learning rates chosen on the dev panel with seed {SEARCH_SEED}." if study.rates else ""
    about = f"`{command}`; panels {panels}. Intervals: 95 % t over seeds; differences are paired over tasks.{rates}"
    draw(study, cells, out / "picture.png")
    sections = [success(study, cells, seeds), costs(study, cells, chosen)]
    if study.reliance:
        sections.insert(1, reliance(study, cells, seeds))
    text = write_diagnostics(out, Diagnostics(title=study.title, about=about, sections=tuple(sections)))
    write_report(out)
    return text


def paired_points(one: Sequence[Summary], other: Sequence[Summary], stage: str, panel: str) -> list[float]:
    """Per seed, the mean over tasks of the difference in success on the same task, in points."""
    out = []
    for a, b in zip(one, other, strict=True):
        left, right = (evaluation(s, stage, panel, "plan")["solved"] for s in (a, b))
        out.append(100 * fmean(int(x) - int(y) for x, y in zip(left, right, strict=True)))
    return out


def of_arm(cells: Sequence[Summary], arm: str) -> list[Summary]:
    """Its cells but those of the search, by seed."""
    return [s for s in cells if s["arm"] == arm and s["seed"] != SEARCH_SEED]


def untrained(study: Study, arm: str, cells: Sequence[Summary]) -> list[Summary]:
    """Whose measure before training an arm is compared with: its own, where it has plans; else the first arm's."""
    return of_arm(cells, arm if study.arms[arm].agent == "plan" else next(iter(study.arms)))


def success(study: Study, cells: Sequence[Summary], seeds: Sequence[int]) -> Section:
    """A row per arm, stage and panel: every seed, mean with t-interval, and the paired difference to the first arm."""
    head = ["weights" if study.rates else "agent", "stage", "panel", *(f"seed {seed}" for seed in seeds)]
    head += ["mean [95 %]", "gain over untrained", f"against {next(iter(study.arms.values())).label}"]
    rows: list[list[str]] = []
    by_arm = {arm: of_arm(cells, arm) for arm in study.arms}
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
                base = [100 * value(s, "base", panel, "plan") for s in untrained(study, arm, cells)]
                gain = spread([g - b for g, b in zip(got, base, strict=True)], signed=True)
                same = known is first or agent != "plan"
                against = "" if same else spread(paired_points(known, first, stage, panel), signed=True)
                rows.append([study.arms[arm].label, stage, panel, *map(points, got), spread(got), gain, against])
    note = "Bars: means after the last stage; dots: seeds."
    return section("Success", note, head, rows, "picture.png")


SHOWN = ("own", "own, fixed", "swapped", "none", "oracle")


def reliance(study: Study, cells: Sequence[Summary], seeds: Sequence[int]) -> Section:
    """A row per arm and plan: success of every seed, how far the plan was followed, the difference to the first arm."""
    head = ["executor trained with", "plan", *(f"seed {seed}" for seed in seeds), "mean [95 %]"]
    head += ["actions on plan", f"against {next(iter(study.arms.values())).label}"]
    rows = []
    for condition in SHOWN:
        first: list[Summary] = []
        for arm, one in study.arms.items():
            known = [s["reliance"]["results"][condition] for s in of_arm(cells, arm)]
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
    return section(f"Under different plans, {study.reliance} tasks", "", head, rows)


def costs(study: Study, cells: Sequence[Summary], chosen: dict[str, float]) -> Section:
    """What each arm took: parameters, environment steps, time and memory."""
    head = ["weights" if study.rates else "agent", "trained parameters", "learning rates", "environment steps"]
    head += ["seconds a run", "peak memory, MB"]
    counts = ("calls", "read", "written") if all("calls" in e for s in cells for e in s["evals"]) else ()  # older: none
    head += ["model calls an episode (train)", "tokens read", "tokens written"] if counts else []
    rows = []
    for arm, one in study.arms.items():
        known = of_arm(cells, arm)
        steps, wall, memory = (fmean(s[key] for s in known) for key in ("env_steps", "wall_s", "memory_mb"))
        parameters = f"{known[0]['parameters']['trained']:,}"
        row = [one.label, parameters, f"x {chosen[arm]:g}", f"{steps:,.0f}", f"{wall:.0f}", f"{memory:.0f}"]
        last = [evaluation(s, study.stages[-1], "train", one.agent) for s in known]
        rows.append(row + [f"{fmean(e[key] for e in last):,.1f}" for key in counts])
    return section("Cost", "Means over seeds; an episode's after the last stage.", head, rows)


def draw(study: Study, cells: Sequence[Summary], path: Path) -> None:
    """Success after the last stage on the train and held-out panels: seeds as dots, means as bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.55 * len(study.arms)), layout="constrained")
    for axes, panel, title in zip(
        figure.subplots(1, 2, sharey=True), ("train", "heldout"), ("training distribution", "held out"), strict=True
    ):
        for place, (arm, one) in enumerate(study.arms.items()):
            got = [100 * value(s, study.stages[-1], panel, one.agent) for s in of_arm(cells, arm)]
            axes.barh(place, fmean(got), height=0.6, color="#b8c9de", edgecolor="#42607f")
            axes.plot(got, [place] * len(got), "o", color="#1d3349", markersize=5)
            base = fmean(100 * value(s, "base", panel, "plan") for s in untrained(study, arm, cells))
            axes.plot([base, base], [place - 0.4, place + 0.4], color="#a33", linestyle="--", linewidth=1)
            if place == 0:
                axes.text(base, -0.75, " untrained", color="#a33", fontsize=8, va="center")
        axes.set_yticks(range(len(study.arms)), [one.label for one in study.arms.values()])
        axes.set_xlim(0, 100)
        axes.set_xlabel(f"success, % ({title})")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()
    figure.savefig(path, dpi=130)
