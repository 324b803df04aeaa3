"""Split a study into cells and store the result of each, so that a stopped study continues with the missing ones."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hiplan.errors import ConfigError
from hiplan.files import read_object, write_text

COLUMNS = (
    TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    TextColumn("left"), TimeRemainingColumn(),
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One computation, ``make(**arguments)``, whose result is stored in ``file``.

    ``make`` is a module-level function with JSON arguments and a JSON result. ``about``: what the result depends on,
    such as settings and a digest of the weights, but not paths.
    """

    file: Path
    make: Callable[..., dict[str, Any]]
    arguments: dict[str, Any]
    about: dict[str, Any]

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that identify the function and ``about``."""
        text = json.dumps([self.make.__qualname__, self.about], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_cells(cells: Sequence[Cell], parallel: int, console: Console, fresh: bool = False) -> list[dict[str, Any]]:
    """Compute the missing cells and return the results of all, in order.

    ``parallel``: the number of processes, with one torch thread each; 0 computes all cells in this process. ``fresh``:
    run each cell in a new process, so that its peak memory is its own. A result is stored as soon as it is complete.
    Raises ``ConfigError`` for a stored result of other settings, and for two cells with the same file.
    """
    files = [cell.file for cell in cells]
    if twice := next((file for file in files if files.count(file) > 1), None):
        raise ConfigError(f"two cells would be stored in {str(twice)!r}; give runs in folders with different names")
    for cell in cells:
        if cell.file.is_file() and read_cell(cell.file).get("cell") != cell.digest:
            raise ConfigError(
                f"{str(cell.file)!r} was made with other settings; delete it, or choose another folder "
                "(--out, or --summaries for run.py ablate)"
            )
    missing = [cell for cell in cells if not cell.file.is_file()]
    with Progress(*COLUMNS, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("cells", total=len(cells), completed=len(cells) - len(missing))
        for cell in _finished(missing, parallel, fresh):
            console.print(f"{cell.file.stem}: done", markup=False, highlight=False)
            progress.advance(bar)
    return [read_cell(cell.file) for cell in cells]


def _finished(cells: Sequence[Cell], parallel: int, fresh: bool) -> Iterator[Cell]:
    """Compute the cells and yield each as it finishes."""
    if parallel == 0:
        for cell in cells:
            _run_cell(cell)
            yield cell
        return
    processes = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(parallel, processes, _one_thread, max_tasks_per_child=1 if fresh else None) as pool:
        running = {pool.submit(_run_cell, cell): cell for cell in cells}
        try:
            for future in as_completed(running):
                future.result()
                yield running[future]
        except BaseException:
            pool.shutdown(cancel_futures=True)  # waits for the running cells, which store their results
            raise


def read_cell(file: Path) -> dict[str, Any]:
    """The stored result of a cell. Raises ``ConfigError`` if the file is not valid."""
    return read_object(file, "cell")


def _one_thread() -> None:
    """Limit torch to one thread by the environment variable that it reads at import."""
    os.environ["OMP_NUM_THREADS"] = "1"


def _run_cell(cell: Cell) -> None:
    kept = {"cell": cell.digest, "about": cell.about} | cell.make(**cell.arguments)
    write_text(cell.file, json.dumps(kept, indent=1, sort_keys=True) + "\n")
