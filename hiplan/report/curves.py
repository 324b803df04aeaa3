"""Training curves: success over environment steps with the stages marked, and smaller charts of other metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from hiplan.files import saving
from hiplan.text import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]
Spans = Sequence[tuple[str, float, float]]
File = TypeVar("File", bound="Path | str | IO[bytes]")

# the colours of Okabe and Ito, distinct under colour-vision deficiency
BLUE, ORANGE, GREEN, PURPLE, INK, FAINT = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#222222", "#8a8a8a"
AGENTS = {"plan": ("with plan", ORANGE, "o"), "none": ("no plan", INK, "s")}


@dataclass(frozen=True)
class Chart:
    """A small chart of keys of the train rows. ``share``: the values are from 0 to 1 and shown in per cent."""

    title: str
    series: tuple[tuple[str, str, str], ...]  # key, label, colour
    share: bool = False


def _roles(key: str) -> tuple[tuple[str, str, str], ...]:
    return ((f"{key}_planner", "planner", PURPLE), (f"{key}_executor", "executor", BLUE))


CHARTS = (
    Chart(
        "adherence to the plan", (("adherence", "actions on plan", GREEN), ("coverage", "steps done", BLUE)), share=True
    ),
    Chart("turns per episode", (("turns", "", BLUE),)),
    Chart("reward", _roles("reward")),
    Chart("groups without variance", _roles("zero_variance"), share=True),
    Chart("entropy (nats per token)", _roles("entropy")),
    Chart("KL, own plan to swapped plan (nats)", (("plan_kl", "", INK),)),
    Chart("KL to the stage's start (nats)", _roles("kl")),
)


def draw_curves(metrics: Sequence[Row], file: File, narrow: bool = False) -> File:
    """Draw training and evaluation rows as PNG to a path or a binary file; returns ``file``.

    Charts without values are left out. ``narrow``: all charts in one column, for small screens. Raises ``UserError`` if
    the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    known: list[Row] = [{"stage": "", "iteration": 0, **row} for row in metrics]  # a row may lack them
    train = sorted((row for row in known if row.get("kind") == "train"), key=lambda row: row["iteration"])
    evals = [row for row in known if row.get("kind") == "eval" and row.get("panel") == "dev"]
    axis = Axis.of(train, evals)
    charts = [c for c in CHARTS if any(math.isfinite(_value(row, key)) for row in train for key, _, _ in c.series)]
    columns = 1 if narrow else 2 if len(charts) in (1, 2, 4) else 3
    rows = math.ceil(len(charts) / columns)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
    size = (5.4, 4.4 + 1.7 * rows) if narrow else (11, 4.8 + 2.1 * rows)
    figure = Figure(figsize=size, facecolor="white", layout=layout)
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[4.2 if narrow else 4.6, *[2.0] * rows])
    spans = stage_spans(train, axis) or [("", 0, 1)]
    main = figure.add_subplot(grid[0, :])
    _draw_success(main, train, evals, spans, axis, narrow)
    for number, chart in enumerate(charts):
        axes = figure.add_subplot(grid[1 + number // columns, number % columns])
        series = [s for s in chart.series if any(math.isfinite(_value(row, s[0])) for row in train)]
        for key, label, color in series:
            _line(axes, train, axis, key, label, color)
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=8, loc="best")
        axes.set_title(chart.title, fontsize=10, loc="left", color=INK)
        _style_axes(axes, spans, chart.share, ticks=4)
        if number + columns >= len(charts):
            axes.set_xlabel(axis.label, fontsize=9)
    if not charts or not narrow:
        main.set_xlabel(axis.label, fontsize=9)
    with saving(file):
        figure.savefig(file, dpi=150)
    return file


@dataclass(frozen=True)
class Axis:
    """The unit of the x axis: environment steps, or iterations if rows do not have their steps."""

    key: str
    label: str

    @staticmethod
    def of(train: Sequence[Row], evals: Sequence[Row]) -> Axis:
        """Environment steps if every row has them and some are above 0, else iterations."""
        steps = [_value(row, "env_steps") for row in [*train, *evals]]
        known = all(map(math.isfinite, steps)) and any(steps)
        return Axis("env_steps", "environment steps") if known else Axis("iteration", "iterations")

    def place(self, row: Row) -> float:
        """The position of a row on the axis: the end of its iteration or evaluation."""
        return float(row[self.key]) + (self.key == "iteration" and row.get("kind") == "train")


def stage_spans(train: Sequence[Row], axis: Axis) -> list[tuple[str, float, float]]:
    """(name, start, end) per stage, in order."""
    spans: list[tuple[str, float, float]] = []
    for row in train:
        stage, place = str(row["stage"]), axis.place(row)
        if spans and spans[-1][0] == stage:
            spans[-1] = (stage, spans[-1][1], place)
        else:
            spans.append((stage, spans[-1][2] if spans else 0.0, place))
    return spans


def smooth(values: Sequence[float], window: int) -> list[float]:
    """The moving average over a centred window, of the finite values in it."""
    half = window // 2
    means = []
    for middle in range(len(values)):
        near = [v for v in values[max(0, middle - half) : middle + half + 1] if math.isfinite(v)]
        means.append(sum(near) / len(near) if near else math.nan)
    return means


def _draw_success(
    axes: Axes, train: Sequence[Row], evals: Sequence[Row], spans: Spans, axis: Axis, narrow: bool
) -> None:
    if train:
        _line(axes, train, axis, "success", "training rollouts", BLUE)
    for number, (agent, (name, color, marker)) in enumerate(AGENTS.items()):
        series: dict[str, list[Row]] = {}
        for row in sorted((r for r in evals if r.get("agent", "plan") == agent), key=lambda row: row["iteration"]):
            series.setdefault(str(row.get("decoding", "")), []).append(row)
        if not series:
            continue
        main = max(series, key=lambda decoding: (len(series[decoding]), decoding == "greedy"))
        dodge = (number - 0.5) * 0.008 * (spans[-1][2] - spans[0][1])
        points = [(axis.place(row) + dodge, 100 * _value(row, "success")) for row in series[main]]
        bars = [
            [100 * max(0.0, sign * (_bound(row, side) - _value(row, "success"))) for row in series[main]]
            for side, sign in (("low", -1), ("high", 1))
        ]
        x, y = [p[0] for p in points], [p[1] for p in points]
        label = f"dev tasks, {name}" + (f" ({clean(main)})" if main else "")
        look: dict[str, Any] = {"color": color, "marker": marker, "markeredgecolor": "white", "linestyle": "--"}
        axes.errorbar(x, y, yerr=bars, label=label, capsize=3, linewidth=1, elinewidth=1.4, zorder=4, **look)
        others = [(axis.place(r) + dodge, 100 * _value(r, "success")) for d in series if d != main for r in series[d]]
        if others:
            hollow: dict[str, Any] = {"marker": marker, "facecolor": "none", "edgecolor": color, "alpha": 0.8}
            axes.scatter(
                [x for x, _ in others], [y for _, y in others], s=26, label="other decodings", zorder=3, **hollow
            )
    _style_axes(axes, spans, share=True)
    axes.set_ylim(-3, 113)
    axes.set_title("success", fontsize=12, weight="bold", loc="left", color=INK, pad=44 if narrow else 26)
    for stage, first, stop in spans:
        axes.text((first + stop) / 2, 0.975, clean(stage), transform=axes.get_xaxis_transform(), ha="center", va="top",
                  fontsize=10.5, weight="bold", color="#555555", parse_math=False)  # fmt: skip
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        entries = dict(sorted(zip(labels, handles, strict=True), key=lambda entry: entry[0] == "other decodings"))
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.01, 0.995), "ncols": 2 if narrow else 4}
        axes.legend(entries.values(), entries.keys(), frameon=False, fontsize=9, **place)
    else:
        axes.text(0.5, 0.5, "no training yet", transform=axes.transAxes, ha="center", va="center", color=FAINT)


def _line(axes: Axes, train: Sequence[Row], axis: Axis, key: str, label: str, color: str) -> None:
    """Draw one key: a faint line of the values, and a strong one of the moving average within each stage."""
    scale = 100 if key in ("success", *(k for chart in CHARTS if chart.share for k, _, _ in chart.series)) else 1
    window = max(1, len(train) // 20)
    for number, stage in enumerate(dict.fromkeys(row["stage"] for row in train)):
        rows = [row for row in train if row["stage"] == stage]
        x = [axis.place(row) for row in rows]
        y = [scale * _value(row, key) for row in rows]
        few = sum(map(math.isfinite, y)) == 1
        axes.plot(x, y, color=color, linewidth=0.9, alpha=0.35, zorder=2)
        style: dict[str, Any] = {"marker": "."} if few else {}
        axes.plot(x, smooth(y, window), color=color, linewidth=2, label="" if number else label, zorder=3, **style)


def _style_axes(axes: Axes, spans: Spans, share: bool, ticks: int = 8) -> None:
    """Add stage bands and a light grid, remove the box."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    for number, (_, first, stop) in enumerate(spans):
        axes.axvspan(first, stop, color="#eef1f5" if number % 2 == 0 else "#dfe5ec", linewidth=0, zorder=0)
    if share:
        axes.set_ylim(-3, 103)
        axes.set_yticks(range(0, 101, 25), [f"{tick} %" for tick in range(0, 101, 25)])
    first, stop = spans[0][1], spans[-1][2]
    axes.set_xlim(first - 0.02 * (stop - first), stop + 0.02 * (stop - first))
    axes.grid(axis="y", color="white", linewidth=1, zorder=1)
    axes.tick_params(labelsize=8.5, length=0, colors=INK)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)


def _value(row: Row, key: str) -> float:
    """The number under ``key``; NaN if there is none."""
    value = row.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def _bound(row: Row, side: str) -> float:
    bound = _value(row, side)
    return bound if math.isfinite(bound) else _value(row, "success")
