"""Tables of studies: success in per cent with intervals over seeds, differences paired by task, by environment."""

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
CellResult = Mapping[str, Any]
Parts = Mapping[str, Sequence[int]]

# -- numbers ------------------------------------------------------------------------------------


def parts_of(panel: str, digest: str) -> Parts:
    """The task indices of a panel: all, and by environment. Raises ``ConfigError`` if the panel has another hash."""
    found = named_panel(panel)
    if found.hash != digest:
        raise ConfigError(
            f"the panel {panel!r} has the hash {found.hash}, but the cells were made with {digest!r}; delete the cells "
            "and run the study again"
        )
    return found.parts


def parts_of_cell(cell: CellResult) -> Parts:
    """``parts_of`` for the panel of a cell of ``hiplan diagnose``."""
    about = cell["about"]
    cut = f"-{about['tasks']}" if about["tasks"] else ""
    return parts_of(f"{about.get('env') or 'mixed'}-{about['panel']}-0{cut}", cell["panel"])


def part_name(part: str, where: Sequence[int]) -> str:
    """A part with its number of tasks: ``household (62)``."""
    return f"{part} ({len(where)})"


def bits(solved: str, where: Sequence[int]) -> list[float]:
    """Per task in ``where``, 1 if it was solved and 0 if not."""
    return [float(solved[i]) for i in where]


def share(solved: str, where: Sequence[int]) -> float:
    """The percentage of the tasks in ``where`` that were solved."""
    return 100 * fmean(bits(solved, where))


def points(percent: float) -> str:
    return f"{percent:.0f} %"


def interval(mean: float, low: float, high: float, signed: bool = False, digits: int = 0) -> str:
    """``+12 [+3, +21]``; without bounds if they are NaN."""
    form = f"{'+' if signed else ''}.{digits}f"
    shown = [f"{round(x, digits) + 0.0:{form}}" for x in (mean, low, high)]  # never "-0"
    return shown[0] if math.isnan(low) else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def spread(percents: Sequence[float], signed: bool = False) -> str:
    """Mean and 95 % t-interval of the values that are not NaN: ``+12 [+3, +21]``."""
    known = [percent for percent in percents if not math.isnan(percent)]
    return interval(*t_interval(known), signed) if known else "–"


def gap(one: Sequence[str], other: Sequence[str], where: Sequence[int]) -> str:
    """The mean paired difference in percentage points, with its t-interval over seeds, or over tasks for one seed."""
    mean, low, high = paired([bits(solved, where) for solved in one], [bits(solved, where) for solved in other])
    return interval(100 * mean, 100 * low, 100 * high, signed=True)


def over(seeds: Sequence[int]) -> str:
    """What the intervals are over: seeds, or tasks for one seed."""
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
    name: str, seeds: Sequence[int], before: Sequence[CellResult], after: Sequence[CellResult], out: Path
) -> list[Section]:
    """Success under each condition and the contrasts between conditions, by environment."""
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
            "share of an action's words in one step of the plan, %",
            *map(spread, spelled),
        ]
    )
    picture = draw_reliance(_shares(parts, shown, both), out / f"reliance-{name}.png")
    head = ["tasks", "plan", BEFORE, *map(_seed, seeds), f"{AFTER}: mean [95 %]", "gain"]
    note = f"The same executor on the same tasks with the same decoding. 95 % t-intervals over {over(seeds)}."
    kept_to = [[CONDITIONS[c], *_followed(c, both)] for c in shown if c not in ("paraphrased", "none")]
    followed = ["plan", "actions on plan", "steps done"]
    means = "Untrained → trained, means over episodes with a plan, for all environments together."
    how = (
        f"Differences paired by task, with 95 % t-intervals: over tasks for the untrained model, over {over(seeds)} "
        "for trained ones."
    )
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
    parts: Parts, shown: Sequence[str], both: Sequence[Sequence[CellResult]]
) -> dict[str, dict[str, tuple[float, list[float]]]]:
    """Per environment and condition: success before training, and after it by seed, from 0 to 1."""

    def success(found: Sequence[CellResult], condition: str, part: str) -> list[float]:
        return [share(c["results"][condition]["solved"], parts[part]) / 100 for c in found]

    before, after = both
    drawn = [part for part in parts if part != ALL] or [ALL]
    return {
        part: {c: (success(before, c, part)[0], success(after, c, part)) for c in shown} for part in drawn
    }  # fmt: skip


def _followed(condition: str, both: Sequence[Sequence[CellResult]]) -> list[str]:
    """Adherence and coverage before and after training; only steps in the environment's vocabulary are recognised."""
    was, now = ([c["results"][condition] for c in found] for found in both)
    return [f"{_mean(was, key)} → {_mean(now, key)}" for key in ("adherence", "coverage")]


def _worth(
    part: str, where: Sequence[int], both: Sequence[Sequence[CellResult]], shown: Sequence[str]
) -> list[list[str]]:
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


def _rho(found: Sequence[CellResult], where: Sequence[int]) -> str:
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


def cross_section(name: str, seeds: Sequence[int], cell: CellResult) -> Section:
    """The cross-play table: planners in rows, executors in columns."""
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
    note = (
        "Success with the executor of the same run minus the mean over those of other runs, in percentage points, with "
        f"95 % t-intervals over planners: {', '.join(gaps)}."
    )
    head = ["tasks", "", *(f"executor of seed {seed}" for seed in seeds)]
    return section(f"Roles of different runs, {NAMES[name]} tasks", note, head, rows)


def deviation_section(name: str, before: Sequence[CellResult], after: Sequence[CellResult], out: Path) -> Section:
    """Verdicts of actions by the position of the first ready step."""
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
    head = ["first ready step", "agent", "actions", *map(str, Verdict)]
    note = (
        "Actions under the agent's own plans, by the first ready step before the action, for all environments "
        "together; the trained agents of all seeds are added up."
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


def policy_sections(name: str, seeds: Sequence[int], by_policy: Mapping[str, Sequence[CellResult]]) -> list[Section]:
    """Success of each policy and the paired difference to the default, by environment; and what each policy costs."""
    rows, costs = [], []
    parts = parts_of_cell(by_policy[DEFAULT][0])
    solved = {policy: [cell["result"]["solved"] for cell in cells] for policy, cells in by_policy.items()}
    for part, where in parts.items():
        for policy, known in solved.items():
            got = [share(one, where) for one in known]
            against = "" if policy == DEFAULT else gap(known, solved[DEFAULT], where)
            rows.append([part_name(part, where), policy, *map(points, got), spread(got), against])
    for policy, cells in by_policy.items():
        costs.append([policy, *(f"{fmean(c['result'][key] for c in cells):.{n}f}" for key, n in COSTS.values())])
    note = f"95 % t-intervals over {over(seeds)}; differences are paired by task."
    head = ["tasks", "policy", *map(_seed, seeds), "mean [95 %]", "against the default"]
    spent = (
        "Means per episode, including rehearsals and candidate plans that were not chosen. Each token that is read "
        "counts once, as with a KV cache."
    )
    every = section(f"Policies, {NAMES[name]} tasks", note, head, rows)
    return [
        brief(every, ["policy"], {"mean [95 %]": "mean", "against the default": "against the default"}),
        every,
        section(f"What policies cost, {NAMES[name]} tasks", spent, ["policy", *COSTS], costs),
    ]


def brief(table: Section, keys: Sequence[str], values: Mapping[str, str], picture: str | None = None) -> Section:
    """A short form of a table: all tasks and each environment as columns instead of rows.

    ``keys``: the columns that identify a row. ``values``: the columns to show, with their new names.
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


def _mean(results: Sequence[CellResult], key: str) -> str:
    known = [100 * r[key] for r in results if r[key] is not None]
    return points(fmean(known)) if known else "–"
