"""Evaluation results as a table: a row per stage and agent, a column per panel.

Each row uses one decoding throughout: the best on the dev panel, so that a gain is counted against the base model
at its best and not against a decoding that happens to be bad for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from hiplan.text import clean, markdown

Row = Mapping[str, Any]

STAGES = ("base", "executor", "planner", "joint")
AGENTS = {"plan": "with plan", "none": "no plan"}
PANELS = ("train", "dev", "heldout")


@dataclass(frozen=True)
class Result:
    """One row of the table: ``cells`` holds the evaluation shown per panel."""

    stage: str
    agent: str
    decoding: str
    cells: Mapping[str, Row]


def results(evals: Sequence[Row]) -> list[Result]:
    """The newest evaluation per panel of each stage and agent, in the stages' order.

    Rows of another kind are ignored; a panel the chosen decoding was not run on stays empty.
    """
    grouped: dict[tuple[str, str], dict[str, dict[str, Row]]] = {}
    for row in sorted((r for r in evals if r.get("kind", "eval") == "eval"), key=lambda r: int(r.get("iteration", 0))):
        decodings = grouped.setdefault((str(row["stage"]), str(row.get("agent", "plan"))), {})
        decodings.setdefault(str(row.get("decoding", "")), {})[str(row["panel"])] = row
    found = []
    for (stage, agent), decodings in grouped.items():
        chosen = max(decodings, key=lambda name: _merit(name, decodings[name]))
        found.append(Result(stage, agent, chosen, decodings[chosen]))
    return sorted(found, key=lambda r: (_rank(r.stage, STAGES), _rank(r.agent, tuple(AGENTS))))


def table(evals: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of cells as plain text."""
    rows = results(evals)
    panels = panel_names(rows)
    decoded = any(row.decoding for row in rows)
    head = ["stage", "agent", *["decoding"] * decoded, *(_panel_head(panel, rows) for panel in panels)]
    body = [
        [
            r.stage,
            AGENTS.get(r.agent, r.agent),
            *[r.decoding] * decoded,
            *(cell(r.cells.get(panel)) for panel in panels),
        ]
        for r in rows
    ]
    return [clean(text) for text in head], [[clean(text) for text in line] for line in body]


def panel_names(rows: Sequence[Result]) -> list[str]:
    """The panels that were run, train and dev first."""
    return sorted({panel for row in rows for panel in row.cells}, key=lambda panel: _rank(panel, PANELS))


def results_table(evals: Sequence[Row]) -> Table:
    """The results for the terminal."""
    head, rows = table(evals)
    notes = ["success [interval]", *["decoding: the best on dev of those tried"] * ("decoding" in head)]
    shown = Table(caption="; ".join(notes) if rows else None, header_style="bold")
    for number, name in enumerate(head):
        shown.add_column(Text(name), justify="right" if number >= _labels(head) else "left")
    for number, row in enumerate(rows):
        ends = number + 1 == len(rows) or rows[number + 1][0] != row[0]
        shown.add_row(*(Text(text) for text in row), end_section=ends)
    return shown


def markdown_table(evals: Sequence[Row]) -> str:
    """The results as a Markdown table."""
    head, rows = table(evals)
    rule = ["---:" if number >= _labels(head) else "---" for number in range(len(head))]
    return "\n".join(f"| {' | '.join(map(markdown, line))} |" for line in (head, rule, *rows)) + "\n"


def cell(row: Row | None) -> str:
    """``61 % [52, 70]``; a dash where nothing was measured."""
    if row is None:
        return "–"
    low, high = row.get("low"), row.get("high")
    interval = f" [{100 * low:.0f}, {100 * high:.0f}]" if low is not None and high is not None else ""
    return f"{100 * row['success']:.0f} %{interval}"


def _merit(name: str, panels: Mapping[str, Row]) -> tuple[bool, int, float, int, bool]:
    """What ranks a decoding: run on dev, how lately, success there; then the panels it was run on, and greedy."""
    dev = panels.get("dev")
    latest, success = (int(dev.get("iteration", 0)), float(dev["success"])) if dev else (0, 0.0)
    return dev is not None, latest, success, len(panels), name == "greedy"


def _panel_head(panel: str, rows: Sequence[Result]) -> str:
    counts = sorted({int(row.cells[panel]["n"]) for row in rows if "n" in row.cells.get(panel, {})})
    if not counts:
        return panel
    return f"{panel} (n = {counts[0]})" if len(counts) == 1 else f"{panel} (n = {counts[0]}–{counts[-1]})"


def _labels(head: Sequence[str]) -> int:
    return 3 if "decoding" in head else 2


def _rank(name: str, order: tuple[str, ...]) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)
