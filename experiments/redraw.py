"""Rewrite the tables and figures of stored studies from their cells.

\b
  python experiments/redraw.py
  python experiments/redraw.py docs/studies/weights

Without arguments, rewrites every study in docs/studies and the tables in README.md and docs/*.md. Does not train or
evaluate anything. A document shows the table of a study between two comments:

\b
  <!-- table: weights / Success -->
  ...
  <!-- end of table -->
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import typer

from experiments import comparison
from experiments.studies import SEARCH_SEED, STUDIES
from hiplan.cli.app import run as one_line
from hiplan.errors import ConfigError
from hiplan.report.diagnostics import Diagnostics, Section, markdown_table, read_diagnostics, write_diagnostics
from hiplan.runs.cells import read_cell
from hiplan.runs.tables import BEFORE, cross_section, deviation_section, policy_sections, reliance_sections

ROOT = Path(__file__).resolve().parents[1]
STUDIES_FOLDER = ROOT / "docs" / "studies"
SHOWN = re.compile(r"(<!-- table: ([\w-]+) / (.+?) -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)
app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__)
def redraw(
    studies: Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDER", help="Folders of studies. [default: docs/studies/*]")
    ] = None,
) -> None:
    for folder in studies or sorted(path for path in STUDIES_FOLDER.iterdir() if path.is_dir()):
        study(folder, folder)
        typer.echo(f"{folder}: written")
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if not studies else []:
        text = document.read_text(encoding="utf-8")
        if (filled := fill(text, STUDIES_FOLDER)) != text:
            document.write_text(filled, encoding="utf-8")
            typer.echo(f"{document}: written")


def study(folder: Path, out: Path) -> None:
    """Write the tables and figures of the study in ``folder`` to ``out``. Raises ``ConfigError`` if it has no study."""
    known = read_diagnostics(folder)
    if known is None:
        raise ConfigError(f"no study at {str(folder)!r}; expected a folder with cells and diagnostics.json")
    if (folder / "cells").is_dir():
        diagnosis(folder, out, known)
    else:
        runs(folder, out, known.about.split("`")[1])


def runs(folder: Path, out: Path, command: str) -> None:
    """A study of ``run.py ablate``."""
    if folder.name not in STUDIES:
        raise ConfigError(f"unknown study {folder.name!r}; expected one of {', '.join(STUDIES)}")
    arms = list(STUDIES[folder.name].arms)
    cells = [read_cell(file) for file in sorted(folder.glob("*.json")) if file.name != "diagnostics.json"]
    cells.sort(key=lambda cell: (cell["seed"] != SEARCH_SEED, arms.index(cell["arm"]), cell["seed"]))
    finished = [cell for cell in cells if cell["seed"] != SEARCH_SEED]
    rates = {cell["arm"]: cell["rate"] for cell in finished}
    seeds = sorted({cell["seed"] for cell in finished})
    comparison.report(STUDIES[folder.name], cells, rates, seeds, out, command)


def diagnosis(folder: Path, out: Path, known: Diagnostics) -> None:
    """A study of ``run.py diagnose`` or ``policies``."""
    cells = {file.stem: read_cell(file) for file in sorted((folder / "cells").glob("*.json"))}
    sections: list[Section] = []
    for panel in ("train", "dev", "heldout"):
        mine = {name: cell for name, cell in cells.items() if name.startswith(f"{panel}-")}
        if f"{panel}-{BEFORE}" in mine:
            after = {name: cell for name, cell in mine.items() if name.startswith(f"{panel}-trained-")}
            seeds, trained, before = seeds_of(after), list(after.values()), [mine[f"{panel}-{BEFORE}"]]
            sections += reliance_sections(panel, seeds, before, trained, out)
            if f"{panel}-cross" in mine:
                sections.append(cross_section(panel, seeds, mine[f"{panel}-cross"]))
            sections.append(deviation_section(panel, before, trained, out))
        elif mine:
            by_policy: dict[str, dict[str, Any]] = {}
            for name, cell in mine.items():
                by_policy.setdefault(cell["about"]["way"], {})[name] = cell
            seeds = seeds_of(next(iter(by_policy.values())))
            sections += policy_sections(
                panel, seeds, {policy: list(found.values()) for policy, found in by_policy.items()}
            )
    write_diagnostics(out, known.model_copy(update={"sections": tuple(sections)}))


def seeds_of(cells: dict[str, Any]) -> list[int]:
    """The seeds of runs, which end their names: ``train-trained-main-2``."""
    return [int(name.rpartition("-")[2]) for name in cells]


def fill(text: str, folder: Path) -> str:
    """The document with every marked table replaced by that of the study in ``folder``.

    Raises ``ConfigError`` if a study has no such table.
    """

    def table(match: re.Match[str]) -> str:
        start, name, title, _, end = match.groups()
        found = read_diagnostics(folder / name)
        sections = {section.title: section for section in found.sections} if found else {}
        if title not in sections:
            raise ConfigError(f"the study {name!r} has no table {title!r}; expected one of {', '.join(sections)}")
        return f"{start}\n{markdown_table(sections[title])}\n\n{end}"

    return SHOWN.sub(table, text)


if __name__ == "__main__":
    sys.exit(one_line(app))
