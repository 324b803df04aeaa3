"""Figures of studies: success under different plans, success of arms, and deviations from the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplan.files import saving
from hiplan.report.curves import BLUE, GREEN, INK, ORANGE, PURPLE
from hiplan.trace import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 6.6  # inches; legible on a screen with 500 pixels
PALE = "#b9c4ce"
VERDICT_STYLE: dict[Verdict, tuple[str, str]] = {  # colour and hatch, to be distinct in grey
    Verdict.ON_PLAN: (GREEN, ""),
    Verdict.PREMATURE: ("#E69F00", "//"),
    Verdict.REPEATED: (PURPLE, ".."),
    Verdict.OFF_PLAN: (ORANGE, "xx"),
    Verdict.UNPLANNED_RECOVERY: (BLUE, "\\\\"),
}
ENVIRONMENT_COLORS = ("#9fb7d1", BLUE, GREEN, PURPLE)


def draw_reliance(success: Mapping[str, Mapping[str, tuple[float, Sequence[float]]]], path: Path) -> Path:
    """Draw success by environment and condition: (before, after by seed), shares from 0 to 1.

    Each environment has a panel. Success before training is a pale bar; after training, a bar with a dot per seed.
    """
    from matplotlib.figure import Figure

    names = list(next(iter(success.values())))
    figure = Figure(figsize=(WIDTH, 1.1 + 0.52 * len(names)), facecolor="white", layout="constrained")
    panels = figure.subplots(1, len(success), sharey=True, squeeze=False)[0]
    for axes, (environment, conditions) in zip(panels, success.items(), strict=True):
        for place, (before, after) in enumerate(conditions.values()):
            mean = sum(after) / len(after)
            axes.barh(place - 0.19, 100 * before, 0.34, color=PALE, label="untrained" if place == 0 else "")
            axes.barh(place + 0.19, 100 * mean, 0.34, color=BLUE, label="trained, mean" if place == 0 else "")
            dots: dict[str, Any] = {"s": 20, "color": "white", "edgecolor": INK, "zorder": 3, "clip_on": False}
            axes.scatter([100 * s for s in after], [place + 0.19] * len(after), label="" if place else "a seed", **dots)
        axes.set_title(environment, fontsize=11, loc="left")
        axes.set_xlim(0, 100)
        axes.set_xlabel("success (%)")
        axes.grid(axis="x", color="#dddddd", zorder=0)
        axes.set_axisbelow(True)
        _hide_spines(axes)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=9, ncols=3
    )
    return _save(figure, path)


def draw_arms(
    success: Mapping[str, Mapping[str, Mapping[str, tuple[float | None, Sequence[float]]]]], path: Path
) -> Path:
    """Draw the success of arms by panel, arm and environment: (before training, after by seed), in per cent.

    Success before training is a dotted line, if it is known.
    """
    from matplotlib.figure import Figure

    arms = list(next(iter(success.values())))
    environments = list(next(iter(next(iter(success.values())).values())))
    height = 0.8 / len(environments)
    figure = Figure(
        figsize=(WIDTH, 1.6 + 0.36 * len(environments) * len(arms)), facecolor="white", layout="constrained"
    )
    panels = figure.subplots(1, len(success), sharey=True, squeeze=False)[0]
    for axes, (title, by_arm) in zip(panels, success.items(), strict=True):
        for place, by_environment in enumerate(by_arm.values()):
            for number, (environment, (before, after)) in enumerate(by_environment.items()):
                y = place + (number + 0.5) * height - 0.4
                mean, color = sum(after) / len(after), ENVIRONMENT_COLORS[number % len(ENVIRONMENT_COLORS)]
                axes.barh(y, mean, 0.9 * height, color=color, label=environment if place == 0 else "")
                dots: dict[str, Any] = {"s": 18, "color": "white", "edgecolor": INK, "zorder": 3, "clip_on": False}
                axes.scatter(after, [y] * len(after), label="a seed" if place == number == 0 else "", **dots)
                if before is not None:
                    ends, first = [y - height / 2, y + height / 2], place == number == 0
                    axes.plot([before] * 2, ends, color=INK, linestyle=":", label="untrained" if first else "")
        axes.set_title(title, fontsize=11, loc="left")
        axes.set_xlim(0, 100)
        axes.set_xlabel("success (%)")
        axes.grid(axis="x", color="#dddddd", zorder=0)
        axes.set_axisbelow(True)
        _hide_spines(axes)
    panels[0].set_yticks(range(len(arms)), arms, fontsize=9)
    panels[0].invert_yaxis()
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=9, ncols=4
    )
    return _save(figure, path)


def draw_deviations(counts: Mapping[str, Mapping[int, Mapping[str, int]]], path: Path) -> Path:
    """Draw shares of verdicts by the position of the first ready step (0: every step is done), a panel per agent."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 0.5 + 2.7 * len(counts)), facecolor="white", layout="constrained")
    places = sorted({p for known in counts.values() for p in known}, key=lambda p: (p == 0, p))
    panels = figure.subplots(len(counts), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, known) in zip(panels, counts.items(), strict=True):
        for x, place in enumerate(places):
            mine, bottom = known.get(place, {}), 0.0
            for verdict, (color, hatch) in VERDICT_STYLE.items():
                share = 100 * mine.get(verdict, 0) / max(1, sum(mine.values()))
                look: dict[str, Any] = {"color": color, "hatch": hatch, "edgecolor": "white", "linewidth": 0.5}
                axes.bar(x, share, 0.8, bottom=bottom, label=str(verdict) if x == 0 else "", **look)
                bottom += share
            axes.text(x, 102, f"{sum(mine.values()):,}", ha="center", fontsize=9, color=INK)
        last = max(places, default=0)
        names = {0: "all\ndone"} | {p: f"{p}+" if p == last == 6 else str(p) for p in places if p}
        axes.set_xticks(range(len(places)), [names[p] for p in places])
        axes.set_title(f"{name} (actions above the bars)", fontsize=10, loc="left", pad=14)
        axes.set_ylim(0, 100)
        axes.set_ylabel("share of actions (%)")
        _hide_spines(axes)
    panels[-1].set_xlabel("first ready step")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return _save(figure, path)


def _hide_spines(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _save(figure: Figure, path: Path) -> Path:
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    return path
