"""Evaluation results as a table: rows by stage, agent and environment, a column per panel.

Each stage and agent is shown with the decoding that is best on the dev panel, so that the untrained model is not shown
with a decoding that suits it badly. ``hiplan.report.gains`` compares stages with the same decoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from hiplan.envs.tasks import ALL, Panel, is_heldout_kind
from hiplan.evaluation import wilson
from hiplan.text import clean, markdown

Row = Mapping[str, Any]
Panels = Mapping[str, Panel]

STAGES = ("base", "executor", "planner", "joint")
AGENTS = {"plan": "with plan", "none": "no plan"}
PANELS = ("train", "dev", "heldout")


@dataclass(frozen=True)
class Result:
    """The results of one agent after one stage. ``cells``: an evaluation per panel; ``parts``: by environment."""

    stage: str
    agent: str
    decoding: str
    cells: Mapping[str, Row]
    parts: Mapping[str, Mapping[str, Row]] = field(default_factory=dict)


def results(evals: Sequence[Row], panels: Panels | None = None) -> list[Result]:
    """The newest evaluation per panel of each stage and agent, in the order of the stages.

    Ignores rows of other kinds. A panel is missing if it was not evaluated with the selected decoding. ``panels``: the
    tasks by panel name; with them, results are also given by environment if a panel has several.
    """
    grouped: dict[tuple[str, str], dict[str, dict[str, Row]]] = {}
    for row in sorted((r for r in evals if r.get("kind", "eval") == "eval"), key=lambda r: int(r.get("iteration", 0))):
        decodings = grouped.setdefault((str(row["stage"]), str(row.get("agent", "plan"))), {})
        decodings.setdefault(str(row.get("decoding", "")), {})[str(row["panel"])] = row
    found = []
    for (stage, agent), decodings in grouped.items():
        chosen = max(decodings, key=lambda name: _merit(name, decodings[name]))
        cells = decodings[chosen]
        found.append(Result(stage, agent, chosen, cells, by_environment(cells, panels or {})))
    return sorted(found, key=lambda r: (_rank(r.stage, STAGES), _rank(r.agent, tuple(AGENTS))))


def by_environment(cells: Mapping[str, Row], panels: Panels) -> dict[str, dict[str, Row]]:
    """The evaluations restricted to each environment, by environment and panel; empty if no panel has several."""
    found: dict[str, dict[str, Row]] = {}
    for panel, row in cells.items():
        for part, where in places(row, panels.get(panel)).items():
            if part != ALL:
                successes = sum(row["solved"][i] == "1" for i in where)
                low, high = wilson(successes, len(where))
                found.setdefault(part, {})[panel] = {
                    "success": successes / len(where), "low": low, "high": high, "n": len(where),
                }  # fmt: skip
    return dict(sorted(found.items()))


def places(row: Row, panel: Panel | None) -> Mapping[str, Sequence[int]]:
    """The indices of the row's tasks in ``solved``, all and by environment; only all if the panel does not fit."""
    solved = row.get("solved")
    if not isinstance(solved, str):
        return {}
    if panel is None or len(panel.tasks) != len(solved):
        return {ALL: range(len(solved))}
    return panel.parts


def table(evals: Sequence[Row], panels: Panels | None = None) -> tuple[list[str], list[list[str]]]:
    """The head and the rows, as plain text."""
    rows = results(evals, panels)
    names = panel_names(rows)
    decoded, split = any(row.decoding for row in rows), any(row.parts for row in rows)
    head = ["stage", "agent", *["decoding"] * decoded, *["tasks"] * split]
    body = []
    for row in rows:
        label = [row.stage, AGENTS.get(row.agent, row.agent), *[row.decoding] * decoded]
        for part, cells in {ALL: row.cells, **row.parts}.items():
            body.append([*label, *[part] * split, *(cell(cells.get(panel)) for panel in names)])
    head += [panel_head(panel, rows) for panel in names]
    return [clean(text) for text in head], [[clean(text) for text in line] for line in body]


def panel_names(rows: Sequence[Result]) -> list[str]:
    """The evaluated panels: train, dev, heldout, then others."""
    return sorted({panel for row in rows for panel in row.cells}, key=lambda panel: _rank(panel, PANELS))


def results_table(evals: Sequence[Row], panels: Panels | None = None) -> Table:
    """The results for the terminal; environments are below their stage and agent."""
    head, rows = table(evals, panels)
    notes = ["success [95 % interval]", *["untrained: with its best decoding on dev"] * ("decoding" in head)]
    labels, split = _labels(head), "tasks" in head
    shown = Table(
        caption=Text("; ".join(notes)) if rows else None,
        box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    names = [", ".join(head[: labels - 1])] if split else head[:labels]
    for number, name in enumerate([*names, *head[labels:]]):
        shown.add_column(Text(name), justify="right" if number >= len(names) else "left")
    for number, row in enumerate(rows):
        ends = number + 1 == len(rows) or rows[number + 1][0] != row[0]
        whole, part = ", ".join(row[: labels - 1]), row[labels - 1]
        label = [whole if part == ALL else f"  {part}"] if split else row[:labels]
        shown.add_row(*map(Text, [*label, *row[labels:]]), end_section=ends)
    return shown


def markdown_table(evals: Sequence[Row], panels: Panels | None = None) -> str:
    """The results as a Markdown table."""
    head, rows = table(evals, panels)
    rule = ["---:" if number >= _labels(head) else "---" for number in range(len(head))]
    return "\n".join(f"| {' | '.join(map(markdown, line))} |" for line in (head, rule, *rows)) + "\n"


def cell(row: Row | None) -> str:
    """A result as ``61 % [52, 70]``; a dash if there is none."""
    if row is None:
        return "–"
    low, high = row.get("low"), row.get("high")
    interval = f" [{100 * low:.0f}, {100 * high:.0f}]" if low is not None and high is not None else ""
    return f"{100 * row['success']:.0f} %{interval}"


def panel_head(panel: str, rows: Sequence[Result]) -> str:
    """A panel with its number of tasks: ``dev (n = 64)``."""
    counts = sorted({int(row.cells[panel]["n"]) for row in rows if "n" in row.cells.get(panel, {})})
    if not counts:
        return panel
    return f"{panel} (n = {counts[0]})" if len(counts) == 1 else f"{panel} (n = {counts[0]}–{counts[-1]})"


def panel_note(name: str, panel: Panel) -> str:
    """The content of a panel: ``dev: 64 tasks (34 crafting, 30 household), 32 of held-out kinds``."""
    parts = [f"{len(where)} {part}" for part, where in panel.parts.items() if part != ALL]
    heldout = sum(bool(is_heldout_kind(task)) for task in panel.tasks)
    split = f" ({', '.join(parts)})" if parts else ""
    mixed = f", {heldout} of held-out kinds" if 0 < heldout < len(panel.tasks) else ""
    return clean(f"{name}: {len(panel.tasks)} tasks{split}{mixed}")


def _merit(name: str, panels: Mapping[str, Row]) -> tuple[bool, int, float, int, bool]:
    """The rank of a decoding: evaluated on dev, how recently, success there; then the number of panels, and greedy."""
    dev = panels.get("dev")
    latest, success = (int(dev.get("iteration", 0)), float(dev["success"])) if dev else (0, 0.0)
    return dev is not None, latest, success, len(panels), name == "greedy"


def _labels(head: Sequence[str]) -> int:
    return 2 + ("decoding" in head) + ("tasks" in head)


def _rank(name: str, order: tuple[str, ...]) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)
