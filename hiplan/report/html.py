"""A run's folder as one HTML file that needs nothing else: no script, no network, images inside."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hiplan.errors import UserError
from hiplan.report.tables import Row, panel_names, results, table
from hiplan.report.template import PAGE
from hiplan.report.transcript import blocks, clean, title
from hiplan.trace import Episode

T = TypeVar("T")

PICTURES = (
    (
        "curves.png",
        "Training",
        "Shaded: the stages. Faint lines are as measured, strong ones a moving average; bars are intervals.",
    ),
    (
        "plan_graph.png",
        "A plan and its revisions",
        "Each plan as it stood when it was replaced, derived from the trace. Arrows lead to the steps that wait.",
    ),
)


def write_report(run_dir: Path | str) -> Path:
    """Write ``report.html`` into the run's folder from the files it finds there; returns its path.

    Read where present: ``config.yaml``, ``metrics.jsonl``, ``curves.png``, ``plan_graph.png``, ``transcripts.jsonl``,
    ``panels.json``, ``times.json``, ``environment.json``.
    """
    from jinja2 import Environment

    run = Path(run_dir)
    if not run.is_dir():
        raise UserError(f"there is no run folder {str(run)!r}; give the folder that holds metrics.jsonl")
    metrics = _lines(run / "metrics.jsonl", json.loads)
    times = _object(run / "times.json")
    config = _text(run / "config.yaml")
    head, rows = _results(metrics)
    page = Environment(autoescape=True).from_string(PAGE)
    html = page.render(
        name=clean(run.resolve().name),
        tiles=_tiles(metrics, times),
        head=head,
        rows=rows,
        pictures=[
            (heading, base64.b64encode((run / file).read_bytes()).decode(), note)
            for file, heading, note in PICTURES
            if (run / file).is_file()
        ],
        episodes=[_episode(episode) for episode in _lines(run / "transcripts.jsonl", Episode.from_json)],
        facts=_facts(_object(run / "panels.json"), config, _object(run / "environment.json")),
        config="\n".join(clean(line) for line in config.splitlines()),
    )
    path = run / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


def _tiles(metrics: Sequence[Row], times: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The run in a few numbers: (what, value)."""
    tiles: list[tuple[str, str]] = []
    found = [row for row in results(metrics_of(metrics, "eval")) if row.agent == "plan"]
    for panel in ("heldout", "dev"):
        shown = [row.cells[panel]["success"] for row in found if panel in row.cells]
        if shown:
            change = " → ".join(f"{100 * success:.0f} %" for success in dict.fromkeys((shown[0], shown[-1])))
            name = "held-out" if panel == "heldout" else panel
            tiles.append((f"{name} success, with plan", change))
            break
    train = metrics_of(metrics, "train")
    if train:
        tiles.append(("training iterations", f"{len({row['iteration'] for row in train}):,}"))
        steps = max(int(row.get("env_steps") or 0) for row in train)
        tiles += [("environment steps", f"{steps:,}")] if steps else []
    if times.get("wall_s") is not None:
        tiles.append((clean(str(times.get("hardware") or "wall time")), duration(float(times["wall_s"]))))
    return tiles


def metrics_of(metrics: Sequence[Row], kind: str) -> list[Row]:
    """The rows of one kind."""
    return [row for row in metrics if row.get("kind") == kind]


def duration(seconds: float) -> str:
    """``48 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _results(metrics: Sequence[Row]) -> tuple[list[tuple[str, bool]], list[tuple[bool, list[tuple[str, str | None]]]]]:
    """The results' head, as (title, is a number), and rows, as (starts a stage, [(text, per cent)])."""
    evals = metrics_of(metrics, "eval")
    found, (head, lines) = results(evals), table(evals)
    panels = panel_names(found)
    labels = len(head) - len(panels)
    rows = []
    for number, (result, line) in enumerate(zip(found, lines, strict=True)):
        shares = [f"{100 * result.cells[p]['success']:.1f}" if p in result.cells else "0" for p in panels]
        first = number > 0 and result.stage != found[number - 1].stage
        rows.append((first, list(zip(line, [*[None] * labels, *shares], strict=True))))
    return [(text, number >= labels) for number, text in enumerate(head)], rows


def _episode(episode: Episode) -> dict[str, Any]:
    revisions = sum(not record.kept for record in episode.plans[1:])
    about = f"{len(episode.turns)} turns, {revisions} revision{'s' * (revisions != 1)}"
    return {"title": title(episode), "success": episode.success, "about": about, "blocks": blocks(episode)}


def _facts(panels: Mapping[str, Any], config: str, environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What it takes to run it again: seeds, panels, versions."""
    facts = [(f"config: {key}", value) for key, value in re.findall(r"(?m)^\s*(\w*seed\w*):\s*(\S.*?)\s*$", config)]
    for name, panel in panels.items():
        entry = panel if isinstance(panel, dict) else {"hash": panel}
        facts.append((f"panel {name}", ", ".join(f"{key} {value}" for key, value in entry.items())))
    for key, value in environment.items():
        inner = value.items() if isinstance(value, dict) else [(key, value)]
        facts += [(str(name), str(text)) for name, text in inner]
    return [(clean(label), clean(value)) for label, value in facts]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _object(path: Path) -> dict[str, Any]:
    found = json.loads(_text(path) or "{}")
    if not isinstance(found, dict):
        raise UserError(f"{str(path)!r} should hold a JSON object; remove it or write it again")
    return found


def _lines(path: Path, read: Callable[[str], T]) -> list[T]:
    """What the lines of a file say; a last line cut short, as in a run that was stopped, is left out."""
    lines = [line for line in _text(path).split("\n") if line.strip()]
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(read(line))
        except ValueError as error:
            if number < len(lines):
                raise UserError(f"line {number} of {str(path)!r} does not parse: {error}; remove that line") from None
    return found
