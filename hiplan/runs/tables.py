"""Studies as tables: success in points with intervals over seeds, differences paired by task, by environment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from hiplan.envs.tasks import ALL, named_panel
from hiplan.errors import ConfigError
from hiplan.evaluation import correlation, paired, plan_reliance, t_interval
from hiplan.evaluation.diagnostics import CONDITIONS, USED_UP
from hiplan.report.comparisons import draw_deviations, draw_reliance
from hiplan.report.diagnostics import Section
from hiplan.trace import Verdict

NAMES = {"train": "train", "dev": "dev", "heldout": "held-out"}
BEFORE, AFTER = "untrained", "trained"
DEFAULT = "on failure (default)"
Kept = Mapping[str, Any]
Parts = Mapping[str, Sequence[int]]

# -- numbers ------------------------------------------------------------------------------------


def parts_of(panel: str, digest: str) -> Parts:
    """The places of the panel's tasks: all, and by environment. ``ConfigError`` where the panel is another by now."""
    found = named_panel(panel)
    if found.hash != digest:
        raise ConfigError(f"the panel {panel!r} has the hash {found.hash}, but the cells were made on {digest}")
    return found.parts


def parts_of_cell(cell: Kept) -> Parts:
    """As ``parts_of``, for a cell of ``diagnose`` or ``policies``."""
    about = cell["about"]
    cut = f"-{about['tasks']}" if about["tasks"] else ""
    return parts_of(f"{about.get('env') or 'mixed'}-{about['panel']}-0{cut}", cell["panel"])


def part_name(part: str, where: Sequence[int]) -> str:
    """``household (62)``: with the number of tasks."""
    return f"{part} ({len(where)})"


def bits(solved: str, where: Sequence[int]) -> list[float]:
    """1 for each of these tasks that was solved, 0 for each that was not."""
    return [float(solved[i]) for i in where]


def share(solved: str, where: Sequence[int]) -> float:
    """Per cent of these tasks that were solved."""
    return 100 * fmean(bits(solved, where))


def points(percent: float) -> str:
    return f"{percent:.0f} %"


def interval(mean: float, low: float, high: float, signed: bool = False, digits: int = 0) -> str:
    """``+12 [+3, +21]``; without bounds where they are not numbers."""
    form = f"{'+' if signed else ''}.{digits}f"
    shown = [f"{round(x, digits) + 0.0:{form}}" for x in (mean, low, high)]  # never "-0"
    return shown[0] if math.isnan(low) else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def spread(percents: Sequence[float], signed: bool = False) -> str:
    """Mean and 95 % t-interval in points, of the numbers among them: ``+12 [+3, +21]``."""
    known = [percent for percent in percents if not math.isnan(percent)]
    return interval(*t_interval(known), signed) if known else "–"


def gap(one: Sequence[str], other: Sequence[str], where: Sequence[int]) -> str:
    """The mean difference on the same tasks in points, a seed each, with its t-interval over seeds (or tasks)."""
    mean, low, high = paired([bits(solved, where) for solved in one], [bits(solved, where) for solved in other])
    return interval(100 * mean, 100 * low, 100 * high, signed=True)


def over(seeds: Sequence[int]) -> str:
    """What intervals are over."""
    return "seeds" if len(seeds) > 1 else "tasks"


# -- reliance ------------------------------------------------------------------------------------

CONTRASTS = {
    "its own plan with revisions instead of none": ("own", "none"),
    "its own first plan, never revised, instead of none": ("own, fixed", "none"),
    "revising its own plan instead of never": ("own", "own, fixed"),
    "the right plan instead of another task's, neither revised": ("own, fixed", "swapped"),
    "another task's plan instead of none": ("swapped", "none"),
    "the environment's plan with revisions instead of its own (headroom)": ("oracle", "own"),
    "the environment's first plan instead of its own, neither revised": ("oracle, fixed", "own, fixed"),
    "its own words instead of synonyms, neither revised": ("own, fixed", "paraphrased"),
}


def reliance_sections(
    name: str, seeds: Sequence[int], before: Sequence[Kept], after: Sequence[Kept], out: Path
) -> list[Section]:
    """Success under each condition, and the differences that matter; by environment."""
    both, parts = (before, after), parts_of_cell(before[0])
    shown = [c for c in CONDITIONS if all(c in cell["results"] for found in both for cell in found)]
    rows, worth = [], []
    for part, where in parts.items():
        for condition in shown:
            was, now = ([c["results"][condition]["solved"] for c in found] for found in both)
            got, gain = [share(solved, where) for solved in now], gap(now, was[:1] * len(now), where)
            label = [part_name(part, where), CONDITIONS[condition], points(share(was[0], where))]
            rows.append([*label, *map(points, got), spread(got), gain])
        worth += _worth(part, where, both, shown)
    spelled = [[100 * c["overlap"] for c in found if c["overlap"] is not None] for found in both]
    worth.append(
        [
            part_name(ALL, parts[ALL]),
            "words of an action that one step of the plan spells out, %",
            *map(spread, spelled),
        ]
    )
    picture = draw_reliance(_shares(parts, shown, both), out / f"reliance-{name}.png")
    head = ["tasks", "plan", BEFORE, *map(_seed, seeds), f"{AFTER}: mean [95 %]", "gain"]
    note = f"The same executor on the same tasks, one decoding. 95 % t-intervals over {over(seeds)}."
    kept_to = [[CONDITIONS[c], *_followed(c, both)] for c in shown if c not in ("paraphrased", "none")]
    followed = ["plan", "actions on plan", "steps done"]
    means = "Untrained → trained, means over episodes with a plan. They were kept for all environments together."
    how = f"Paired by task, 95 % t-intervals: untrained over tasks (one model), trained over {over(seeds)}."
    success = section(f"Success under different plans, {NAMES[name]} tasks", note, head, rows)
    values = section(f"What the plan is worth, {NAMES[name]} tasks", how, ["tasks", "", BEFORE, AFTER], worth)
    return [
        brief(success, ["plan"], {BEFORE: BEFORE, f"{AFTER}: mean [95 %]": AFTER}, picture.name),
        success,
        brief(values, [""], {AFTER: AFTER}),
        values,
        section(f"How far the plan was followed, {NAMES[name]} tasks", means, followed, kept_to),
    ]


def _shares(
    parts: Parts, shown: Sequence[str], both: Sequence[Sequence[Kept]]
) -> dict[str, dict[str, tuple[float, list[float]]]]:
    """Per environment and condition: success before, and after by seed, from 0 to 1."""

    def success(found: Sequence[Kept], condition: str, part: str) -> list[float]:
        return [share(c["results"][condition]["solved"], parts[part]) / 100 for c in found]

    before, after = both
    drawn = [part for part in parts if part != ALL] or [ALL]
    return {
        part: {c: (success(before, c, part)[0], success(after, c, part)) for c in shown} for part in drawn
    }  # fmt: skip


def _followed(condition: str, both: Sequence[Sequence[Kept]]) -> list[str]:
    """Adherence and steps done, before and after; predicates know steps in the environment's own words alone."""
    was, now = ([c["results"][condition] for c in found] for found in both)
    return [f"{_mean(was, key)} → {_mean(now, key)}" for key in ("adherence", "coverage")]


def _worth(part: str, where: Sequence[int], both: Sequence[Sequence[Kept]], shown: Sequence[str]) -> list[list[str]]:
    name = part_name(part, where)
    rows = []
    for what, pair in CONTRASTS.items():
        if set(pair) <= set(shown):
            sides = [[[c["results"][key]["solved"] for c in found] for key in pair] for found in both]
            rows.append([name, what, *(gap(one, other, where) for one, other in sides)])
    if "swapped" in shown:
        owed = [
            [
                plan_reliance(*(share(c["results"][key]["solved"], where) for key in ("own, fixed", "swapped")))
                for c in f
            ]
            for f in both
        ]
        what = "plan reliance: share of success owed to the right plan, %"
        rows.append([name, what, *(spread([100 * x for x in shares]) for shares in owed)])
    rows.append([name, "judge's score against uplift, Spearman's rho", *(_rho(found, where) for found in both)])
    return rows


def _rho(found: Sequence[Kept], where: Sequence[int]) -> str:
    """Over seeds. Left out: tasks whose plan could not be judged, and, said so, seeds where one of both is constant."""
    values = []
    for c in found:
        own, none = (bits(c["results"][key]["solved"], where) for key in ("own", "none"))
        scores = [c["judged"][i] for i in where]
        known = [(score, x - y) for score, x, y in zip(scores, own, none, strict=True) if score is not None]
        values.append(correlation([score for score, _ in known], [uplift for _, uplift in known]))
    finite = [value for value in values if not math.isnan(value)]
    if 0 < len(finite) < len(values):
        return f"{fmean(finite):+.2f} ({len(finite)} of {len(values)} seeds)"
    return interval(*t_interval(finite), signed=True, digits=2) if finite else "–"


def cross_section(name: str, seeds: Sequence[int], cell: Kept) -> Section:
    """Planners in rows, executors in columns."""
    matrix, rows, gaps = cell["matrix"], [], []
    n = len(matrix)
    for part, where in parts_of_cell(cell).items():
        shares = [[share(one["solved"], where) for one in row] for row in matrix]
        rows += [
            [part_name(part, where), f"planner of seed {seed}", *map(points, row)]
            for seed, row in zip(seeds, shares, strict=True)
        ]
        own = [shares[i][i] - fmean([shares[i][j] for j in range(n) if j != i]) for i in range(n)]
        gaps.append(f"{spread(own, signed=True)} ({part})")
    note = f"Own executor against the others', in points, 95 % t-interval over planners: {', '.join(gaps)}."
    head = ["tasks", "", *(f"executor of seed {seed}" for seed in seeds)]
    return section(f"Roles of different runs, {NAMES[name]} tasks", note, head, rows)


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
    note = (
        "Actions under the agent's own plans by the step whose turn it was; trained: all seeds together. The counts "
        "were kept for all environments together."
    )
    return section(f"Where episodes leave their plan, {NAMES[name]} tasks", note, head, rows, picture.name)


# -- policies ------------------------------------------------------------------------------------

COSTS = {
    "revisions": ("revisions", 1),
    "actions": ("turns", 1),
    "model calls": ("calls", 1),
    "tokens read": ("read", 0),
    "tokens written": ("written", 0),
}


def policy_sections(name: str, seeds: Sequence[int], by_way: Mapping[str, Sequence[Kept]]) -> list[Section]:
    """Success of each way and the paired difference to the default, by environment; and what each way costs."""
    rows, costs = [], []
    parts = parts_of_cell(by_way[DEFAULT][0])
    solved = {way: [cell["result"]["solved"] for cell in cells] for way, cells in by_way.items()}
    for part, where in parts.items():
        for way, known in solved.items():
            got = [share(one, where) for one in known]
            against = "" if way == DEFAULT else gap(known, solved[DEFAULT], where)
            rows.append([part_name(part, where), way, *map(points, got), spread(got), against])
    for way, cells in by_way.items():
        costs.append([way, *(f"{fmean(c['result'][key] for c in cells):.{n}f}" for key, n in COSTS.values())])
    note = f"95 % t-intervals over {over(seeds)}, differences paired by task."
    head = ["tasks", "plan is revised", *map(_seed, seeds), "mean [95 %]", "against the default"]
    spent = "Per episode, rehearsals and plans not taken included; read: each token once, as with a cache."
    every = section(f"Policies, {NAMES[name]} tasks", note, head, rows)
    return [
        brief(every, ["plan is revised"], {"mean [95 %]": "mean", "against the default": "against the default"}),
        every,
        section(f"What policies cost, {NAMES[name]} tasks", spent, ["plan is revised", *COSTS], costs),
    ]


def brief(table: Section, keys: Sequence[str], values: Mapping[str, str], picture: str | None = None) -> Section:
    """The table with all tasks and each environment side by side instead of below each other.

    ``keys``: the columns that name a row; ``values``: those that are shown, and how they are called.
    """
    at = {name: place for place, name in enumerate(table.head)}
    parts = list(dict.fromkeys(row[0] for row in table.rows))
    found: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {}
    for row in table.rows:
        found.setdefault(tuple(row[at[key]] for key in keys), {})[row[0]] = row
    rows = [
        [*key, *(by_part[part][at[value]] if part in by_part else "" for part in parts for value in values)]
        for key, by_part in found.items()
    ]
    head = [*keys, *(f"{part}: {name}" for part in parts for name in values.values())]
    return section(f"{table.title}, in brief", table.note, head, rows, picture)


def section(
    title: str, note: str, head: Sequence[str], rows: Sequence[Sequence[str]], picture: str | None = None
) -> Section:
    return Section(title=title, note=note, head=tuple(head), rows=tuple(map(tuple, rows)), picture=picture)


def _seed(seed: int) -> str:
    return f"seed {seed}"


def _mean(results: Sequence[Kept], key: str) -> str:
    known = [100 * r[key] for r in results if r[key] is not None]
    return points(fmean(known)) if known else "–"
