"""The results of a study: tables, a figure and a report page from the summaries of its cells."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from experiments.ablate import Summary, evaluation
from experiments.studies import SEARCH_SEED, Arm, Study
from hiplan.envs.tasks import ALL
from hiplan.evaluation import wilson
from hiplan.report.comparisons import draw_arms
from hiplan.report.diagnostics import Diagnostics, Section, write_diagnostics
from hiplan.report.html import write_report
from hiplan.runs.measure import PANELS
from hiplan.runs.tables import (
    NAMES,
    Parts,
    brief,
    gap,
    interval,
    over,
    part_name,
    parts_of,
    points,
    section,
    share,
    spread,
)

AGENTS = {"plan": "with plans", "none": "without plans"}


@dataclass(frozen=True)
class ArmResults:
    """An arm and the summaries of its seeds, without those of the learning-rate search."""

    arm: Arm
    cells: Sequence[Summary]

    def evaluations(self, stage: str, panel: str) -> list[Summary]:
        """The evaluation of each seed (see ``evaluation``)."""
        return [evaluation(cell, stage, panel, self.arm.agent) for cell in self.cells]

    def solved(self, stage: str, panel: str) -> list[str]:
        """Per seed, a string with 1 for each solved task and 0 for each other one."""
        return [e["solved"] for e in self.evaluations(stage, panel)]

    def has_start(self, panel: str) -> bool:
        """Whether the agent was evaluated on the panel before training."""
        wanted = ("base", panel, self.arm.agent)
        return all(any((e["stage"], e["panel"], e["agent"]) == wanted for e in cell["evals"]) for cell in self.cells)


def arm_results(study: Study, cells: Sequence[Summary]) -> list[ArmResults]:
    """The arms of the study, each with its cells."""
    return [
        ArmResults(arm, [s for s in cells if s["arm"] == name and s["seed"] != SEARCH_SEED])
        for name, arm in study.arms.items()
    ]


def report(
    study: Study, cells: Sequence[Summary], chosen: dict[str, float], seeds: Sequence[int], out: Path, command: str
) -> str:
    """Write ``table.md``, ``picture.png`` and ``report.html`` to ``out``; returns the tables as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    arms, shown = arm_results(study, cells), panels_of(cells[-1])
    hashes = ", ".join(f"{panel} {about['hash']} ({about['tasks']} tasks)" for panel, about in shown.items())
    rates = f" Learning rates were chosen on the dev panel with seed {SEARCH_SEED}." if study.rates else ""
    about = f"`{command}`; panels {hashes}. Intervals: 95 % t over seeds; differences are paired over tasks.{rates}"
    stages = [stage for stage in study.stages if stage != "base"]
    sections = [success(study, arms, stages[-1])]
    sections += [every_seed(study, arms, seeds, stage, len(stages) > 1) for stage in reversed(stages)]
    sections += decodings(study, arms, seeds, stages[-1])
    if study.reliance:
        every = reliance(study, arms, seeds)
        against = f"against {arms[0].arm.label}"
        sections += [brief(every, ["plan", "executor trained with"], {"mean [95 %]": "mean", against: against}), every]
    sections.append(costs(study, arms, chosen, stages[-1]))
    draw(arms, stages[-1], out / "picture.png")
    text = write_diagnostics(out, Diagnostics(title=study.title, about=about, sections=tuple(sections)))
    write_report(out)
    return text


def panels_of(summary: Summary) -> dict[str, Summary]:
    """Name, hash and size of each panel of the run, in the order train, dev, heldout."""
    known = [about | {"name": name} for name, about in summary["panels"].items()]
    return {about["panel"]: about for about in sorted(known, key=lambda about: PANELS.index(about["panel"]))}


def parts(arms: Sequence[ArmResults], panel: str) -> Parts:
    """The task indices of the panel, all and by environment."""
    about = panels_of(arms[0].cells[0])[panel]
    return parts_of(about["name"], about["hash"])


def arm_column(study: Study) -> str:
    """The head of the column that names the arms."""
    return "weights" if study.rates else "agent"


def stage_words(stage: str) -> str:
    return "after the last stage" if stage == "final" else f"after the stage {stage}"


# -- sections -----------------------------------------------------------------------------------


def success(study: Study, arms: Sequence[ArmResults], stage: str) -> Section:
    """The short table: a row per arm, a column per panel and environment."""
    places = [(panel, part, where) for panel in ("train", "heldout") for part, where in parts(arms, panel).items()]
    head = [arm_column(study), *(f"{NAMES[panel]}: {part_name(part, where)}" for panel, part, where in places)]
    rows = []
    for label, start in untrained_arms(arms, ("train", "heldout")):
        rows.append([label, *(untrained(start.solved("base", panel), where) for panel, _, where in places)])
    for one in arms:
        got = [[share(solved, where) for solved in one.solved(stage, panel)] for panel, _, where in places]
        rows.append([one.arm.label, *map(spread, got)])
    note = (
        f"Percentage of tasks solved {stage_words(stage)}: mean and 95 % t-interval over seeds. The untrained agent is "
        "one model, with a 95 % Wilson interval over tasks. Numbers of tasks are in parentheses. In the figure, bars "
        "are means, dots are seeds, and dotted lines are the untrained agent."
    )
    return section("Success", note, head, rows, "picture.png")


def every_seed(study: Study, arms: Sequence[ArmResults], seeds: Sequence[int], stage: str, dev: bool) -> Section:
    """The full table: per panel, environment and arm, every seed, the gain by training, and the difference to arm 1."""
    head = ["tasks", arm_column(study), "decoding", *(f"seed {seed}" for seed in seeds), "mean [95 %]"]
    head += ["gain over its own start", f"against {arms[0].arm.label}"]
    rows: list[list[str]] = []
    for panel in ("train", "dev", "heldout") if dev else ("train", "heldout"):
        for part, where in parts(arms, panel).items():
            place = f"{NAMES[panel]}: {part_name(part, where)}"
            for label, start in untrained_arms(arms, (panel,)):
                solved = start.solved("base", panel)
                each = [points(share(one, where)) for one in solved]
                rows.append(
                    [place, label, decodings_text(start, "base", panel), *each, untrained(solved, where), "", ""]
                )
            for one in arms:
                solved = one.solved(stage, panel)
                got = [share(bits, where) for bits in solved]
                gain = gap(solved, one.solved("base", panel), where) if one.has_start(panel) else ""
                against = "" if one is arms[0] else gap(solved, arms[0].solved(stage, panel), where)
                each = [points(percent) for percent in got]
                rows.append(
                    [place, one.arm.label, decodings_text(one, stage, panel), *each, spread(got), gain, against]
                )
    note = (
        f"95 % t-intervals over {over(seeds)}; differences are paired by task. The untrained agent is one model, with "
        "a 95 % Wilson interval over tasks. An arm's own start is the same agent, with plans or without, before "
        "training; arms with equal starts share one row. An interval of width 0 means that all seeds gave the same "
        "number."
    )
    return section(f"Every seed, {stage_words(stage)}", note, head, rows)


def decodings(study: Study, arms: Sequence[ArmResults], seeds: Sequence[int], stage: str) -> list[Section]:
    """Success on dev with each decoding, and the one chosen by each seed; empty if there was only one decoding."""
    rows, split = [], parts(arms, "dev")
    inner = [part for part in split if part != ALL]
    for one in arms:
        tried: dict[str, list[str]] = {}
        for cell in one.cells:
            for e in cell["evals"]:
                if (e["stage"], e["panel"], e["agent"]) == (stage, "dev", one.arm.agent):
                    tried.setdefault(e["decoding"], []).append(e["solved"])
        if len(tried) < 2:
            return []
        best = [e["decoding"] for e in one.evaluations(stage, "dev")]
        for decoding, solved in tried.items():
            means = {part: [share(bits, where) for bits in solved] for part, where in split.items()}
            chose = ", ".join(f"seed {seed}" for seed, name in zip(seeds, best, strict=True) if name == decoding)
            each = map(points, means[ALL])
            rows.append([one.arm.label, decoding, chose, *each, *(spread(means[part]) for part in (ALL, *inner))])
    head = [arm_column(study), "decoding", "chosen by", *(f"seed {seed}" for seed in seeds), "mean [95 %]"]
    head += [f"{part_name(part, split[part])}: mean [95 %]" for part in inner]
    note = (
        f"Success on the {len(split[ALL])} dev tasks {stage_words(stage)}. The train and held-out panels were "
        "evaluated with the chosen decoding only. The choice on few tasks adds to the variation over seeds."
    )
    return [section("Decodings on dev", note, head, rows)]


SHOWN = ("own", "own, fixed", "swapped", "none", "oracle")


def reliance(study: Study, arms: Sequence[ArmResults], seeds: Sequence[int]) -> Section:
    """Per environment, plan and arm: every seed, the share of actions on plan, and the difference to the first arm."""
    head = ["tasks", "plan", "executor trained with", *(f"seed {seed}" for seed in seeds), "mean [95 %]"]
    head += ["actions on plan", f"against {arms[0].arm.label}"]
    panel = panels_of(arms[0].cells[0])[str(study.reliance)]
    rows = []
    for part, where in parts_of(panel["name"], arms[0].cells[0]["reliance"]["panel"]).items():
        for condition in SHOWN:
            first = [cell["reliance"]["results"][condition]["solved"] for cell in arms[0].cells]
            for one in arms:
                known = [cell["reliance"]["results"][condition] for cell in one.cells]
                solved = [r["solved"] for r in known]
                got = [share(bits, where) for bits in solved]
                followed = [100 * r["adherence"] for r in known if r["adherence"] is not None and part == ALL]
                against = "" if one is arms[0] else gap(solved, first, where)
                on_plan = spread(followed) if followed else ""
                each = map(points, got)
                rows.append([part_name(part, where), condition, one.arm.label, *each, spread(got), on_plan, against])
    note = (
        f"95 % t-intervals over {over(seeds)}; differences are paired by task. The shares of actions on plan are known "
        "for all tasks together only."
    )
    return section(f"Under different plans, {NAMES[study.reliance or ALL]} tasks", note, head, rows)


def costs(study: Study, arms: Sequence[ArmResults], chosen: dict[str, float], stage: str) -> Section:
    """The cost of each arm: parameters, environment steps, time and memory."""
    head = [arm_column(study), "trained parameters", "learning rates", "environment steps"]
    head += ["seconds a run", "peak memory, MB"]
    every = [e for one in arms for cell in one.cells for e in cell["evals"]]
    counts = ("calls", "read", "written") if all("calls" in e for e in every) else ()  # cells of 0.1.0 have none
    head += ["model calls an episode (train)", "tokens read", "tokens written"] if counts else []
    rows = []
    for name, one in zip(study.arms, arms, strict=True):
        steps, memory = (fmean(s[key] for s in one.cells) for key in ("env_steps", "memory_mb"))
        timed = all("wall_s" in s for s in one.cells)  # not recorded if the machine was not idle
        wall = f"{fmean(s['wall_s'] for s in one.cells):.0f}" if timed else "–"
        parameters = f"{one.cells[0]['parameters']['trained']:,}"
        row = [one.arm.label, parameters, f"x {chosen[name]:g}", f"{steps:,.0f}", wall, f"{memory:.0f}"]
        last = one.evaluations(stage, "train")
        rows.append(row + [f"{fmean(e[key] for e in last):,.1f}" for key in counts])
    note = (
        "Means over seeds; model calls and tokens are per episode after the last stage."
        if counts
        else "Means over seeds; tokens were not recorded."
    )
    return section("Cost", note, head, rows)


# -- before training -----------------------------------------------------------------------------


def untrained_arms(arms: Sequence[ArmResults], panels: Sequence[str]) -> Iterator[tuple[str, ArmResults]]:
    """The distinct untrained agents of the arms, each with a label and one arm that starts with it."""
    known: dict[tuple[object, ...], ArmResults] = {}
    for one in arms:
        if all(map(one.has_start, panels)):
            key = (one.arm.agent, *(tuple(one.solved("base", panel)) for panel in panels))
            known.setdefault(key, one)
    agents = [one.arm.agent for one in known.values()]
    for one in known.values():
        if len(known) == 1:
            yield "untrained", one
        else:
            yield f"untrained, {AGENTS[one.arm.agent] if len(set(agents)) == len(agents) else one.arm.label}", one


def untrained(solved: Sequence[str], where: Sequence[int]) -> str:
    """Success before training: of one model if all seeds start with the same results, else over seeds."""
    if len(set(solved)) > 1:
        return spread([share(bits, where) for bits in solved])
    low, high = wilson(sum(solved[0][i] == "1" for i in where), len(where))
    return interval(share(solved[0], where), 100 * low, 100 * high)


def decodings_text(one: ArmResults, stage: str, panel: str) -> str:
    """The decodings of the seeds; one name if they are all the same."""
    names = [e["decoding"] for e in one.evaluations(stage, panel)]
    return names[0] if len(set(names)) == 1 else ", ".join(names)


def draw(arms: Sequence[ArmResults], stage: str, path: Path) -> None:
    """Draw success by environment on the train and held-out panels: seeds as dots, means as bars, the start dotted."""
    found = {}
    for panel, title in (("train", "training distribution"), ("heldout", "held out")):
        split = parts(arms, panel)
        inner = {part: where for part, where in split.items() if part != ALL or len(split) == 1}
        found[title] = {
            "\n".join(textwrap.wrap(one.arm.label, 26, break_on_hyphens=False)): {
                part: (
                    fmean(share(bits, where) for bits in one.solved("base", panel)) if one.has_start(panel) else None,
                    [share(bits, where) for bits in one.solved(stage, panel)],
                )
                for part, where in inner.items()
            }
            for one in arms
        }
    draw_arms(found, path)
