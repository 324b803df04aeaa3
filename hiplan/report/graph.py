"""Figures of the plans of an episode: one panel per revision, with the steps as a layered graph.

Fill, border and symbol show the status of a step, so that the figure is legible in grey.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from hiplan.coordination import PlanGraph
from hiplan.coordination.graph import MARKS
from hiplan.coordination.states import step_states
from hiplan.files import saving
from hiplan.plan import Plan, PlanDiff, ReplanReason, StepStatus, diff
from hiplan.report.transcript import REASONS, title
from hiplan.text import clean
from hiplan.trace import Episode

if TYPE_CHECKING:
    from matplotlib.axes import Axes

File = TypeVar("File", bound="Path | str | IO[bytes]")

MAX_PANELS, MAX_STEPS, ROW, NARROW_ROW = 4, 24, 3, 2  # the most panels, steps per panel, steps per row
NODE_W, NODE_H = 2.0, 0.56  # size of a step, in inches
STEP_X, STEP_Y = 2.25, 0.98  # distance between steps in a row, and between rows
GAP, TITLE, HEAD, FOOT, LEGEND_ROW = 0.4, 0.5, 0.8, 0.7, 0.32  # between panels; heights of title, head, foot, row
REVISED = "by this revision"
LEGEND = (("done", 1.25), ("active", 1.3), ("failed", 1.3), ("open", 1.25), ("left out next", 1.75), (REVISED, 1.95))
NARROW = 4.6  # the smallest width of a figure
INK, FAINT = "#222222", "#767676"
STYLES: dict[StepStatus, dict[str, Any]] = {
    StepStatus.DONE: {"facecolor": "#bcdcf0", "edgecolor": "#0b4f7d", "linewidth": 1.4},
    StepStatus.FAILED: {"facecolor": "#ffffff", "edgecolor": "#b33c00", "linewidth": 2.6, "hatch": "////"},
    StepStatus.OPEN: {"facecolor": "#ffffff", "edgecolor": "#555555", "linewidth": 1.2},
    StepStatus.ACTIVE: {"facecolor": "#fff3c4", "edgecolor": "#8a6d00", "linewidth": 2.6},
}
DROPPED: dict[str, Any] = {"facecolor": "#ffffff", "edgecolor": "#a8a8a8", "linewidth": 1.1, "linestyle": (0, (4, 3))}
PILL: dict[str, Any] = {
    "fontsize": 6.5,
    "weight": "bold",
    "color": "white",
    "bbox": {"boxstyle": "round,pad=0.25", "facecolor": "#6a1b9a", "edgecolor": "white"},
}


@dataclass(frozen=True)
class Panel:
    """A plan with the step statuses at its replacement or at the end of the episode.

    ``new``, ``reworded``: the steps that this revision added or reworded. ``dropped``: the open steps that the next
    revision leaves out. ``turns``: the number of turns before the plan and at its end.
    """

    number: int
    plan: Plan
    states: Mapping[int, StepStatus]
    new: frozenset[int]
    reworded: frozenset[int]
    dropped: frozenset[int]
    reason: ReplanReason | None
    turns: tuple[int, int]


def draw_plan(episode: Episode, file: File, dpi: int = 150, narrow: bool = False) -> File:
    """Draw the episode's plans, revision by revision, as PNG to a path or a binary file; returns ``file``.

    ``dpi``: pixels per inch; a panel is between 2.4 and 6.8 inches wide. ``narrow``: all plans in one column, for small
    screens. Raises ``UserError`` if the file cannot be written.
    """
    from matplotlib.figure import Figure

    every = panels(episode)
    shown = every if len(every) <= MAX_PANELS else [*every[: MAX_PANELS - 1], every[-1]]
    drawn = [(panel, _grid(panel.plan, NARROW_ROW if narrow else ROW)) for panel in shown]
    rows = [[entry] for entry in drawn] if narrow else [drawn] * bool(drawn)
    used = max((sum(_width(grid) + GAP for _, grid in row) + GAP for row in rows), default=0.0)
    bodies = [STEP_Y * max(len(grid) for _, grid in row) for row in rows] or [0.5]
    width = max(used, NARROW)
    legend = _legend(width) if shown else []
    foot = FOOT + LEGEND_ROW * max(0, len(legend) - 1)
    height = TITLE + sum(bodies) + HEAD * len(bodies) + GAP * (len(bodies) - 1) + foot
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    heading = textwrap.shorten(title(episode), int(width * 8), placeholder="…")
    _write(axes, 0.3, height - 0.34, heading, fontsize=13, weight="bold", ha="left")
    top, before = height - TITLE, -1
    for row, body in zip(rows, bodies, strict=False):
        left = GAP + (width - sum(_width(grid) + GAP for _, grid in row) - GAP) / 2
        for index, (panel, grid) in enumerate(row):
            if panel.number > before + 1:
                place = (left - GAP / 2, top - HEAD + 0.4) if index else (width / 2, top + 0.2)
                _write(axes, *place, "…", fontsize=16, color=FAINT)
            elif index:
                axes.plot([left - GAP / 2] * 2, [top - HEAD - body, top - HEAD + 0.7], color="#dddddd", linewidth=1)
            _draw_panel(axes, panel, grid, left + _width(grid) / 2, top - HEAD)
            left, before = left + _width(grid) + GAP, panel.number
        top -= HEAD + body + GAP
    _draw_legend(axes, width, legend)
    if not shown:
        _write(axes, width / 2, height / 2, "no plan in this episode", color=FAINT)
    with warnings.catch_warnings(), saving(file):  # characters that the font lacks are drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(file, dpi=dpi)
    return file


def panels(episode: Episode) -> list[Panel]:
    """One panel per plan of the episode; a record that kept the plan extends its panel."""
    states = step_states(episode)
    records = [(i, r.turn, r.reason, r.plan) for i, r in enumerate(episode.plans) if not r.kept]
    ends = [*records, (len(episode.plans), len(episode.turns), None, None)][1:]
    found: list[Panel] = []
    for (_, since, reason, plan), (stop, until, _, following) in zip(records, ends, strict=True):
        if plan is None:  # ends the plan before it
            continue
        change = diff(found[-1].plan, plan) if found else PlanDiff()
        after = {step.id for step in (following or plan).steps}
        final = states[stop - 1]
        new, reworded = frozenset(change.added), frozenset(change.reworded)
        dropped = frozenset(
            i for i, state in final.items() if state not in (StepStatus.DONE, StepStatus.FAILED) and i not in after
        )
        found.append(Panel(len(found), plan, final, new, reworded, dropped, reason, (since, until)))
    return found


def _grid(plan: Plan, most: int) -> list[list[int]]:
    """Step ids in rows of at most ``most``: the layers of the graph, each step near the steps it depends on."""
    shown = {step.id: step for step in plan.steps[:MAX_STEPS]}
    place: dict[int, float] = {}
    rows: list[list[int]] = []
    for layer in PlanGraph(plan).layers():
        ids = [i for i in layer if i in shown]
        above = {i: [place[a] for a in shown[i].after if a in place] for i in ids}
        ids.sort(key=lambda i: sum(above[i]) / len(above[i]) if above[i] else 0.0)
        broken = [ids[start : start + most] for start in range(0, len(ids), most)]
        for row in broken:
            place |= {i: column - (len(row) - 1) / 2 for column, i in enumerate(row)}
        rows += broken
    return rows


def _width(grid: list[list[int]]) -> float:
    return max(STEP_X * max(map(len, grid)), 2.4)


def _draw_panel(axes: Axes, panel: Panel, grid: list[list[int]], middle: float, top: float) -> None:
    """Draw one panel centred on ``middle``, with its steps below ``top``."""
    first, last = panel.turns[0] + 1, panel.turns[1]
    name = f"Revision {panel.number}" if panel.number else "First plan"
    turns = "no turn" if last < first else f"turn {first}" if last == first else f"turns {first}–{last}"
    _write(axes, middle, top + 0.62, name, fontsize=11, weight="bold")
    _write(axes, middle, top + 0.41, f"in force: {turns}", fontsize=8.5)
    _write(axes, middle, top + 0.21, _because(panel.reason), fontsize=8.5, style="italic", color="#8a2f00")
    spots = {
        i: (middle + (column - (len(row) - 1) / 2) * STEP_X, top - STEP_Y * (number + 0.5))
        for number, row in enumerate(grid)
        for column, i in enumerate(row)
    }
    for step in panel.plan.steps:
        parents = sorted((i for i in step.after if i in spots and step.id in spots), key=lambda i: spots[i][0])
        for port, before in enumerate(parents):
            x, y = spots[step.id]
            end = (x + (port - (len(parents) - 1) / 2) * 0.24, y)
            color = FAINT if {step.id, before} & panel.dropped else "#444444"
            _draw_arrow(axes, spots[before], end, list(spots.values()), color)
    for i, (x, y) in spots.items():
        label = f"{i}. {clean(panel.plan.step(i).description)}"
        _draw_step(axes, x, y, label, panel.states[i], i in panel.dropped)
        if i in panel.new or i in panel.reworded:
            word = "new" if i in panel.new else "reworded"
            _write(axes, x + NODE_W / 2 - 0.1, y + NODE_H / 2 + 0.05, word, ha="right", **PILL)
    hidden = len(panel.plan.steps) - len(spots)
    if hidden:
        _write(axes, middle, top - STEP_Y * len(grid) + 0.02, f"… and {hidden} more steps", fontsize=8.5, color=FAINT)


def _draw_arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], nodes: list[tuple[float, float]], color: str
) -> None:
    """Draw an arrow from below ``start`` to above ``end``; it passes rows in between on a lane without nodes."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve

    (x0, y0), (x1, y1) = (start[0], start[1] - NODE_H / 2), (end[0], end[1] + NODE_H / 2 + 0.02)
    points, bend = [(x0, y0)], (STEP_Y - NODE_H) / 2
    between = [x for x, y in nodes if end[1] + 0.01 < y < start[1] - 0.01]
    if between:
        lanes = (x0, x1, x0 + STEP_X / 2, x0 - STEP_X / 2, max(between) + STEP_X / 2)
        lane = next((x for x in lanes if all(abs(x - other) > NODE_W / 2 + 0.03 for other in between)), lanes[-1])
        low, high = y1 + 2 * bend - 0.02, y0 - 2 * bend
        points += [(x0, y0 - bend), (lane, high + bend), (lane, high), (lane, high), (lane, low), (lane, low)]
        x0, y0 = lane, low
    points += [(x0, y0 - bend), (x1, y1 + bend), (x1, y1)]
    codes = [Curve.MOVETO, *[Curve.CURVE4] * (len(points) - 1)]
    arrow = FancyArrowPatch(path=Curve(points, codes), arrowstyle="-|>", mutation_scale=11, zorder=1)
    arrow.set(linewidth=1.1, color=color)
    axes.add_patch(arrow)


def _draw_step(axes: Axes, x: float, y: float, label: str, state: StepStatus, dropped: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = DROPPED if dropped else STYLES[state]
    corner = (x - NODE_W / 2, y - NODE_H / 2)
    shape = "round,pad=0,rounding_size=0.09"
    axes.add_patch(FancyBboxPatch(corner, NODE_W, NODE_H, boxstyle=shape, hatch_linewidth=0.6, zorder=2, **style))
    ink, left = FAINT if dropped else INK, x - NODE_W / 2
    clear = {"boxstyle": "round,pad=0.15", "facecolor": style["facecolor"], "edgecolor": "none"}
    _write(axes, left + 0.17, y, MARKS[state], fontsize=11, weight="bold", color=style["edgecolor"], bbox=clear)
    lines = textwrap.wrap(label, 24, max_lines=3, placeholder="…")
    if len(lines) == 2:  # balance the two lines
        lines = textwrap.wrap(label, max(len(label) // 2 + 3, *map(len, label.split())), max_lines=3, placeholder="…")
    words = "\n".join(lines)
    _write(axes, left + 0.32, y, words, fontsize=8.5, color=ink, ha="left", va="center_baseline", bbox=clear)


def _legend(width: float) -> list[list[tuple[str, float]]]:
    """The legend's entries with their widths in inches, in as few rows as fit."""
    rows: list[list[tuple[str, float]]] = [[]]
    for name, room in LEGEND:
        if rows[-1] and sum(taken for _, taken in rows[-1]) + room > width - 0.4:
            rows.append([])
        rows[-1].append((name, room))
    return rows


def _draw_legend(axes: Axes, width: float, rows: list[list[tuple[str, float]]]) -> None:
    """Draw the legend, a sample of each style, at the bottom."""
    from matplotlib.patches import FancyBboxPatch

    for number, row in enumerate(reversed(rows)):
        left, y = (width - sum(room for _, room in row)) / 2, 0.32 + LEGEND_ROW * number
        for name, room in row:
            if name == REVISED:
                _write(axes, left + 0.05, y + 0.01, "new", ha="left", **PILL)
                _write(axes, left + 0.39, y + 0.01, "reworded", ha="left", **PILL)
                _write(axes, left + 0.98, y, name, fontsize=8, ha="left")
            else:
                status = next((s for s in StepStatus if s == name), StepStatus.OPEN)
                style = STYLES[status] if name == status else DROPPED
                shape = "round,pad=0,rounding_size=0.05"
                axes.add_patch(FancyBboxPatch((left, y - 0.1), 0.42, 0.22, boxstyle=shape, **style))
                _write(axes, left + 0.5, y, f"{MARKS[status]} {name}", fontsize=8, ha="left")
            left += room


def _because(reason: ReplanReason | None) -> str:
    if reason is None:
        return ""
    return "because " + REASONS[reason.kind].format(step=f"step {reason.step}")


def _write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Draw text without interpreting ``$`` as mathematics."""
    axes.text(x, y, text, parse_math=False, **{"ha": "center", "va": "center", "color": INK, **style})
