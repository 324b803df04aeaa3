"""Pictures of diagnostics: success under different plans, and where episodes leave their plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplan.files import saving
from hiplan.report.curves import BLUE, GREEN, INK, ORANGE, PURPLE
from hiplan.trace import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PALE = "#b9c4ce"
VERDICT_LOOK: dict[Verdict, tuple[str, str]] = {  # colour and hatch: told apart in grey, too
    Verdict.ON_PLAN: (GREEN, ""),
    Verdict.PREMATURE: ("#E69F00", "//"),
    Verdict.REPEATED: (PURPLE, ".."),
    Verdict.OFF_PLAN: (ORANGE, "xx"),
    Verdict.UNPLANNED_RECOVERY: (BLUE, "\\\\"),
}


def draw_reliance(success: Mapping[str, tuple[float, Sequence[float]]], path: Path) -> Path:
    """Success per condition: (before, after by seed). Before as a pale bar, after as a bar with a dot per seed."""
    figure, axes = _figure(8.5, 0.9 + 0.62 * len(success))
    for place, (before, after) in enumerate(success.values()):
        mean = sum(after) / len(after)
        axes.barh(place - 0.19, 100 * before, 0.34, color=PALE, label="untrained" if place == 0 else "")
        axes.barh(place + 0.19, 100 * mean, 0.34, color=BLUE, label="trained, mean" if place == 0 else "")
        dots: dict[str, Any] = {"s": 22, "color": "white", "edgecolor": INK, "zorder": 3, "clip_on": False}
        axes.scatter([100 * s for s in after], [place + 0.19] * len(after), label="" if place else "a seed", **dots)
    axes.set_yticks(range(len(success)), list(success))
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("success (%)")
    axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    axes.grid(axis="x", color="#dddddd", zorder=0)
    axes.set_axisbelow(True)
    return _save(figure, path)


def draw_deviations(counts: Mapping[str, Mapping[int, Mapping[str, int]]], path: Path) -> Path:
    """Shares of verdicts by the place of the step whose turn it was (0: every step done), a panel per agent."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * len(counts), 3.4), facecolor="white", layout="constrained")
    places = sorted({p for known in counts.values() for p in known}, key=lambda p: (p == 0, p))
    for axes, (name, known) in zip(
        figure.subplots(1, len(counts), sharey=True, squeeze=False)[0], counts.items(), strict=True
    ):
        for x, place in enumerate(places):
            mine, bottom = known.get(place, {}), 0.0
            for verdict, (color, hatch) in VERDICT_LOOK.items():
                share = 100 * mine.get(verdict, 0) / max(1, sum(mine.values()))
                look: dict[str, Any] = {"color": color, "hatch": hatch, "edgecolor": "white", "linewidth": 0.5}
                axes.bar(x, share, 0.8, bottom=bottom, label=str(verdict) if x == 0 else "", **look)
                bottom += share
            axes.text(x, 102, f"{sum(mine.values()):,}", ha="center", fontsize=8, color=INK)
        last = max(places, default=0)
        names = {0: "all\ndone"} | {p: f"{p}+" if p == last == 6 else str(p) for p in places if p}
        axes.set_xticks(range(len(places)), [names[p] for p in places])
        axes.set_title(f"{name} (actions above the bars)", fontsize=10, loc="left", pad=14)
        axes.set_xlabel("the step whose turn it was")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.axes[0].set_ylabel("share of actions (%)")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return _save(figure, path)


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> Path:
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    return path
