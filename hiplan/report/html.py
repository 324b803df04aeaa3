"""Write a run folder as one self-contained HTML page with embedded images, without scripts or network access."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from hiplan.coordination import scores
from hiplan.envs import Panel
from hiplan.envs.tasks import ALL
from hiplan.errors import UserError
from hiplan.files import write_text
from hiplan.report.curves import draw_curves
from hiplan.report.diagnostics import read_diagnostics
from hiplan.report.files import read_episodes, read_metrics, read_object, read_text, read_times
from hiplan.report.gains import Gain, gains
from hiplan.report.graph import draw_plan
from hiplan.report.samples import selection_note
from hiplan.report.tables import AGENTS, Result, Row, cell, panel_head, panel_names, panel_note, results
from hiplan.report.template import PAGE
from hiplan.report.transcript import blocks, score_rows, title
from hiplan.text import clean
from hiplan.trace import Episode

MAX_EPISODES, DPI = 12, 110  # the most episodes on the page; resolution of their figures
Tile = tuple[str, str]  # value, label
Picture = tuple[str, str]  # for wide screens; for narrow screens, or empty if it is the same


def write_report(run_dir: Path | str) -> Path:
    """Write ``report.html`` to the run's folder from the files there; returns its path.

    Uses those that exist: ``config.yaml``, ``metrics.jsonl``, ``panels/*.json`` (to split results by environment),
    ``diagnostics.json``, ``transcripts.jsonl`` (the first ``MAX_EPISODES``, with figures of their plans),
    ``panels.json``, ``times.json``, ``environment.json``. Raises ``UserError`` if the folder is missing or one of the
    files is not valid.
    """
    from jinja2 import Environment

    run = Path(run_dir)
    if not run.is_dir():
        raise UserError(f"there is no run folder {str(run)!r}; expected the folder with metrics.jsonl")
    metrics = read_metrics(run / "metrics.jsonl")
    evals, panels = metrics_of(metrics, "eval"), read_panels(run)
    about, config = read_object(run / "environment.json"), read_text(run / "config.yaml")
    changes, found = gains(evals, panels), results(evals, panels)
    episodes = read_episodes(run / "transcripts.jsonl")
    page = Environment(autoescape=True).from_string(PAGE)
    html = page.render(
        name=clean(run.resolve().name),
        tiles=headline(changes) + _tiles(metrics, read_times(run / "times.json"), about),
        results=_results(found),
        gains=_gains(changes, found),
        panels=[panel_note(name, panels[name]) for name in panel_names(found) if name in panels],
        curves=_curves(metrics),
        diagnostics=_diagnostics(run),
        episodes=[_episode(episode) for episode in episodes[:MAX_EPISODES]],
        chosen=selection_note(episodes, panels) if panels else "",
        total=len(episodes),
        facts=_facts(read_object(run / "panels.json"), config, about),
        config="\n".join(clean(line) for line in config.splitlines()),
    )
    path = run / "report.html"
    write_text(path, html)
    return path


def read_panels(run: Path) -> dict[str, Panel]:
    """The panels of the run, by their name in its metrics."""
    return {path.stem: Panel.read(path) for path in sorted((run / "panels").glob("*.json"))}


def headline(changes: Sequence[Gain]) -> list[Tile]:
    """Success before and after training by environment, of the first agent, with the same decoding if possible."""
    if not changes:
        return []
    gain = changes[0]
    measured = {panel for panels in gain.changes.values() for panel in panels}
    panel = next((name for name in ("heldout", "dev", "train") if name in measured), min(measured))
    parts = {part: panels[panel] for part, panels in gain.changes.items() if panel in panels}
    inner = {part: change for part, change in parts.items() if part != ALL} or parts
    how = (
        f"{gain.decoding_label} at start and end"
        if gain.same_decoding
        else f"{gain.decoding_label}, the best on dev at start and end"
    )
    return [
        (
            f"{100 * change.start:.0f} → {100 * change.end:.0f} %",
            clean(f"{part + ': ' if part != ALL else ''}{panel} success, {AGENTS.get(gain.agent, gain.agent)}, {how}"),
        )
        for part, change in inner.items()
    ]


def _tiles(metrics: Sequence[Row], times: Mapping[str, Any], about: Mapping[str, Any]) -> list[Tile]:
    """The cost of the run: environment steps, iterations, wall time."""
    tiles: list[Tile] = []
    train = metrics_of(metrics, "train")
    if train:
        iterations = len({row.get("iteration") for row in train})
        steps = max(int(row.get("env_steps") or 0) for row in train)
        tiles += [(f"{steps:,}", f"environment steps in {iterations:,} iterations")] if steps else []
        tiles += [(f"{iterations:,}", "training iterations")] if not steps else []
    if times.get("wall_s") is not None:
        place = f" on {about['cpu']}" if about.get("cpu") else ""
        tiles.append((duration(float(times["wall_s"])), clean(f"wall time{place}")))
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


def _results(found: Sequence[Result]) -> dict[str, Any]:
    """Head and groups; per stage and agent, lines for all tasks and each environment: (label, [(text, per cent)])."""
    panels = panel_names(found)
    groups = []
    for number, result in enumerate(found):
        words = [result.stage, AGENTS.get(result.agent, result.agent), *[result.decoding] * bool(result.decoding)]
        lines = {", ".join(words): result.cells, **result.parts}
        shown = [(clean(label), [_cell(cells.get(panel)) for panel in panels]) for label, cells in lines.items()]
        groups.append({"lines": shown, "first": number == 0 or result.stage != found[number - 1].stage})
    return {"head": [clean(panel_head(panel, found)) for panel in panels], "groups": groups}


def _cell(row: Row | None) -> tuple[str, str]:
    return clean(cell(row)), f"{100 * row['success']:.1f}" if row else "0"


def _gains(changes: Sequence[Gain], found: Sequence[Result]) -> dict[str, Any]:
    """Like ``_results``; per agent and decodings, a line for all tasks and one per environment."""
    panels = [name for name in panel_names(found) if any(name in p for g in changes for p in g.changes.values())]
    groups = []
    for gain in changes:
        name = f"{AGENTS.get(gain.agent, gain.agent)}, {gain.decoding_label}"
        lines = []
        for part, cells in gain.changes.items():
            texts = [(str(cells[panel]) if panel in cells else "–", "0") for panel in panels]
            lines.append((clean(name if part == ALL else part), texts))
        groups.append({"lines": lines, "first": True})
    return {"head": [clean(panel) for panel in panels], "groups": groups}


def _curves(metrics: Sequence[Row]) -> Picture | None:
    """The training curves; ``None`` before training."""
    if not metrics_of(metrics, "train"):
        return None
    return _drawn(lambda file, narrow: draw_curves(metrics, file, narrow))


def _episode(episode: Episode) -> dict[str, Any]:
    """The page's view of an episode: a summary line, the transcript, and a figure of its plans."""
    found, turns, revised = scores(episode), len(episode.turns), episode.revisions()
    about = [f"{turns} turn{'s' * (turns != 1)}", f"{revised} revision{'s' * (revised != 1)}"]
    about += [f"{name} {value}" for name, value, _ in score_rows(found) if name in ("adherence", "coverage")]
    return {
        "title": title(episode),
        "success": episode.success,
        "about": ", ".join(about),
        "blocks": blocks(episode),
        "picture": _plans(episode) if any(record.plan for record in episode.plans) else None,
    }


def _plans(episode: Episode) -> Picture:
    return _drawn(lambda file, narrow: draw_plan(episode, file, DPI, narrow))


def _drawn(draw: Callable[[BytesIO, bool], object]) -> Picture:
    """A figure as PNG in base64, drawn for wide and for narrow screens."""
    files = BytesIO(), BytesIO()
    for file, narrow in zip(files, (False, True), strict=True):
        draw(file, narrow)
    wide, small = (base64.b64encode(file.getvalue()).decode() for file in files)
    return wide, small


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
            "picture": (_image(run / section.picture), "") if section.picture else None,
        }
        for section in (found.sections if found else ())
    ]
    return (
        {"title": clean(found.title), "about": clean(found.about).replace("`", ""), "sections": sections}
        if found
        else None
    )


LABELS = {"cpu": "CPU", "gpu": "GPU", "memory_gib": "memory, GiB"}


def _facts(panels: Mapping[str, Any], config: str, environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is needed to repeat the run: seeds, panels, commit, machine, versions."""
    facts = [(f"config: {key}", value) for key, value in re.findall(r"(?m)^\s*(\w*seed\w*):\s*(\S.*?)\s*$", config)]
    for name, panel in panels.items():
        entry = panel if isinstance(panel, dict) else {"hash": panel}
        facts.append((f"panel {name}", ", ".join(f"{key} {value}" for key, value in entry.items())))
    for key, value in environment.items():
        inner = value.items() if isinstance(value, dict) else [(LABELS.get(key, key), value)]
        prefix = f"{key}: " if isinstance(value, dict) else ""
        facts += [(f"{prefix}{name}", f"{text:,}" if isinstance(text, int) else str(text)) for name, text in inner]
    return [(clean(label), clean(value)) for label, value in facts]
