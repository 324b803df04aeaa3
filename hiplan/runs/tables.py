"""Studies as tables: success in points with intervals over seeds, differences paired by task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from hiplan.evaluation import correlation, paired, plan_reliance, t_interval
from hiplan.evaluation.diagnostics import CONDITIONS, USED_UP
from hiplan.report.comparisons import draw_deviations, draw_reliance
from hiplan.report.diagnostics import Section
from hiplan.trace import Verdict

BEFORE, AFTER = "untrained", "trained"
DEFAULT = "on failure (default)"


def points(percent: float) -> str:
    return f"{percent:.0f} %"


def spread(percents: Sequence[float], signed: bool = False) -> str:
    """Mean and 95 % t-interval in points, of the numbers among them: ``+12 [+3, +21]``."""
    known = [percent for percent in percents if not math.isnan(percent)]
    if not known:
        return "–"
    mean, low, high = t_interval(known)
    sign = "+" if signed else ""
    return f"{mean:{sign}.0f}" if math.isnan(low) else f"{mean:{sign}.0f} [{low:{sign}.0f}, {high:{sign}.0f}]"


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
    name: str, seeds: Sequence[int], before: Sequence[Kept], after: Sequence[Kept], out: Path
) -> list[Section]:
    """Success under each condition, and the differences that matter."""
    both = (before, after)
    shown = [c for c in CONDITIONS if all(c in cell["results"] for found in both for cell in found)]
    rows = []
    for condition in shown:
        was, now = ([c["results"][condition] for c in found] for found in both)
        got = [100 * r["success"] for r in now]
        followed = ["–", "–"]  # predicates know steps in the environment's own words alone
        if condition not in ("paraphrased", "none"):
            followed = [f"{_mean(was, key)} → {_mean(now, key)}" for key in ("adherence", "coverage")]
        untrained = points(100 * was[0]["success"])
        rows.append([CONDITIONS[condition], untrained, *map(points, got), spread(got), *followed])
    head = ["plan", BEFORE, *map(_seed, seeds), f"{AFTER}: mean [95 %]", "adherence", "steps done"]
    success = {c: (before[0]["results"][c]["success"], [a["results"][c]["success"] for a in after]) for c in shown}
    picture = draw_reliance(success, out / f"reliance-{name}.png")
    note = "The same executor on the same tasks. Adherence, steps done: untrained → trained, of episodes with a plan."
    worth = [
        [what, *(_paired(*([c["results"][key] for c in found] for key in pair)) for found in both)]
        for what, pair in CONTRASTS.items()
        if set(pair) <= set(shown)
    ]
    if "swapped" in shown:
        owed = [[_owed(c["results"]) for c in found] for found in both]
        worth.append(["plan reliance: share of success owed to the right plan, %", *map(spread, owed)])
    worth.append(["judge's score against uplift, Spearman's rho", *map(_rho, both)])
    spelled = [[100 * c["overlap"] for c in found if c["overlap"] is not None] for found in both]
    worth.append(["words of an action that one step of the plan spells out, %", *map(spread, spelled)])
    over = "seeds" if len(seeds) > 1 else "tasks"
    how = f"Paired by task, 95 % t-intervals: untrained over tasks (one model), trained over {over}."
    return [
        section(f"Success under different plans, {name} tasks", note, head, rows, picture.name),
        section(f"What the plan is worth, {name} tasks", how, ["", BEFORE, AFTER], worth),
    ]


def cross_section(name: str, seeds: Sequence[int], matrix: Sequence[Sequence[Kept]]) -> Section:
    """Planners in rows, executors in columns."""
    rows = [
        [f"planner of seed {s}", *(points(100 * c["success"]) for c in row)]
        for s, row in zip(seeds, matrix, strict=True)
    ]
    n = len(matrix)
    share = [[100 * cell["success"] for cell in row] for row in matrix]
    gaps = [share[i][i] - fmean([share[i][j] for j in range(n) if j != i]) for i in range(n)]
    note = f"Own executor against the others': {spread(gaps, signed=True)} points, 95 % t-interval over planners."
    head = ["", *(f"executor of seed {seed}" for seed in seeds)]
    return section(f"Roles of different runs, {name} tasks", note, head, rows)


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
                [label, when, f"{every:,}", *(points(100 * mine.get(v, 0) / every) if every else "–" for v in Verdict)]
            )
    picture = draw_deviations(dict(zip((BEFORE, AFTER), totals, strict=True)), out / f"deviations-{name}.png")
    head = ["whose turn it was", "agent", "actions", *map(str, Verdict)]
    note = "Actions under the agent's own plans by the step whose turn it was; trained: all seeds together."
    return section(f"Where episodes leave their plan, {name} tasks", note, head, rows, picture.name)


def policy_section(name: str, seeds: Sequence[int], by_way: Mapping[str, Sequence[Kept]]) -> Section:
    """Success and cost of each way, and the paired difference to the default."""
    rows = []
    for way, results in by_way.items():
        got = [100 * r["success"] for r in results]
        against = "" if way == DEFAULT else _paired(results, by_way[DEFAULT])
        costs = [f"{fmean(r[key] for r in results):.{digits}f}" for key, digits in COSTS.values()]
        rows.append([way, *map(points, got), spread(got), against, *costs])
    head = ["plan is revised", *map(_seed, seeds), "mean [95 %]", "against the default", *COSTS]
    over = "seeds" if len(seeds) > 1 else "tasks"
    note = (
        "Per episode, rehearsals and plans not taken included; read: each token once, as with a cache. "
        f"95 % t-intervals over {over}, differences paired by task."
    )
    return section(f"Policies, {name} tasks", note, head, rows)


COSTS = {
    "revisions": ("revisions", 1),
    "actions": ("turns", 1),
    "model calls": ("calls", 1),
    "tokens read": ("read", 0),
    "tokens written": ("written", 0),
}


def section(
    title: str, note: str, head: Sequence[str], rows: Sequence[Sequence[str]], picture: str | None = None
) -> Section:
    return Section(title=title, note=note, head=tuple(head), rows=tuple(map(tuple, rows)), picture=picture)


def _seed(seed: int) -> str:
    return f"seed {seed}"


def _mean(results: Sequence[Kept], key: str) -> str:
    known = [100 * r[key] for r in results if r[key] is not None]
    return points(fmean(known)) if known else "–"


def _solved(results: Sequence[Kept]) -> list[list[float]]:
    return [[float(x) for x in r["solved"]] for r in results]


def _paired(results: Sequence[Kept], others: Sequence[Kept]) -> str:
    mean, low, high = (100 * x for x in paired(_solved(results), _solved(others)))
    return f"{mean:+.0f} [{low:+.0f}, {high:+.0f}]"


def _owed(results: Mapping[str, Kept]) -> float:
    return 100 * plan_reliance(results["own, fixed"]["success"], results["swapped"]["success"])


def _rho(found: Sequence[Kept]) -> str:
    """Over seeds; tasks whose plan could not be judged are left out."""
    values = []
    for c in found:
        own, none = _solved([c["results"]["own"], c["results"]["none"]])
        known = [(score, x - y) for score, x, y in zip(c["judged"], own, none, strict=True) if score is not None]
        values.append(correlation([score for score, _ in known], [uplift for _, uplift in known]))
    finite = [value for value in values if not math.isnan(value)]
    if not finite:
        return "–"
    mean, low, high = t_interval(finite)
    return f"{mean:+.2f}" if math.isnan(low) else f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"
