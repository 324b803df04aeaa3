"""A run's folder as one HTML file that needs nothing else: no script, no network, images inside."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from hiplan.coordination import scores
from hiplan.errors import UserError
from hiplan.files import write_text
from hiplan.report.diagnostics import read_diagnostics
from hiplan.report.files import read_episodes, read_metrics, read_object, read_text, read_times
from hiplan.report.graph import draw_plan
from hiplan.report.tables import Row, panel_names, results, table
from hiplan.report.template import PAGE
from hiplan.report.transcript import blocks, revisions, score_words, title
from hiplan.text import clean
from hiplan.trace import Episode

MAX_EPISODES, DPI = 12, 110  # told on the page, and of their pictures
CURVES = "Shaded: the stages. Faint lines are as measured, strong ones a moving average; bars are intervals."


def write_report(run_dir: Path | str) -> Path:
    """Write ``report.html`` into the run's folder from the files it finds there; returns its path.

    Read where present: ``config.yaml``, ``metrics.jsonl``, ``curves.png``, ``diagnostics.json``, ``transcripts.jsonl``
    (its first ``MAX_EPISODES``, each with a picture of its plans), ``panels.json``, ``times.json``,
    ``environment.json``. ``UserError`` where one of them cannot be read.
    """
    from jinja2 import Environment

    run = Path(run_dir)
    if not run.is_dir():
        raise UserError(f"there is no run folder {str(run)!r}; give the folder that holds metrics.jsonl")
    metrics = read_metrics(run / "metrics.jsonl")
    times = read_times(run / "times.json")
    config = read_text(run / "config.yaml")
    head, rows = _results(metrics)
    episodes = read_episodes(run / "transcripts.jsonl")
    page = Environment(autoescape=True).from_string(PAGE)
    html = page.render(
        name=clean(run.resolve().name),
        tiles=_tiles(metrics, times),
        head=head,
        rows=rows,
        curves=_image(run / "curves.png"),
        curves_note=CURVES,
        diagnostics=_diagnostics(run),
        episodes=[_episode(episode) for episode in episodes[:MAX_EPISODES]],
        total=len(episodes),
        facts=_facts(read_object(run / "panels.json"), config, read_object(run / "environment.json")),
        config="\n".join(clean(line) for line in config.splitlines()),
    )
    path = run / "report.html"
    write_text(path, html)
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
        tiles.append(("training iterations", f"{len({row.get('iteration') for row in train}):,}"))
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
    """What the page tells of an episode: a line about it, its story, and a picture of its plans."""
    found, turns, revised = scores(episode), len(episode.turns), revisions(episode)
    about = [f"{turns} turn{'s' * (turns != 1)}", f"{revised} revision{'s' * (revised != 1)}"]
    about += [f"{name} {value}" for name, value, _ in score_words(found) if name in ("adherence", "coverage")]
    return {
        "title": title(episode),
        "success": episode.success,
        "about": ", ".join(about),
        "blocks": blocks(episode),
        "picture": _plans(episode) if any(record.plan for record in episode.plans) else "",
    }


def _plans(episode: Episode) -> str:
    drawn = BytesIO()
    draw_plan(episode, drawn, DPI)
    return base64.b64encode(drawn.getvalue()).decode()


def _image(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode() if path.is_file() else ""


def _diagnostics(run: Path) -> dict[str, Any] | None:
    found = read_diagnostics(run)
    sections = [
        {
            "title": clean(section.title),
            "note": clean(section.note),
            "head": list(zip(map(clean, section.head), section.numeric(), strict=True)),
            "rows": [list(zip(map(clean, row), section.numeric(), strict=True)) for row in section.rows],
            "picture": _image(run / section.picture) if section.picture else "",
        }
        for section in (found.sections if found else ())
    ]
    return (
        {"title": clean(found.title), "about": clean(found.about).replace("`", ""), "sections": sections}
        if found
        else None
    )


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
