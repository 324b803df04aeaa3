"""Work cut into cells that are kept when finished: a study that was stopped goes on with the others."""

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
    """``make(**arguments)``, a function of a module with JSON for arguments and answer, kept in ``file``.

    ``about``: what the answer depends on, such as settings and the weights' digest; paths are no part of it.
    """

    file: Path
    make: Callable[..., dict[str, Any]]
    arguments: dict[str, Any]
    about: dict[str, Any]

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits of what the answer depends on."""
        text = json.dumps([self.make.__qualname__, self.about], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_cells(cells: Sequence[Cell], parallel: int, console: Console, fresh: bool = False) -> list[dict[str, Any]]:
    """Every cell's answer, in order; ``parallel`` processes with one torch thread each make those that are missing.

    Each process keeps what it has made, whatever becomes of the others. ``fresh``: every cell has a process of its own,
    so that its peak memory is its own. Raises ``ConfigError`` for a kept answer to other settings, and for two cells
    with one file. ``parallel`` 0 makes all in this process.
    """
    if len({cell.file for cell in cells}) < len(cells):
        raise ConfigError("two cells would be kept in one file; give runs in folders of different names")
    for cell in cells:
        if cell.file.is_file() and read_kept(cell.file).get("cell") != cell.digest:
            raise ConfigError(
                f"{str(cell.file)!r} was made with other settings; delete it, or keep cells in another folder "
                "(--out, or --kept for run.py ablate)"
            )
    missing = [cell for cell in cells if not cell.file.is_file()]
    with Progress(*COLUMNS, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("cells", total=len(cells), completed=len(cells) - len(missing))
        for cell in _made(missing, parallel, fresh):
            console.print(f"{cell.file.stem}: done", markup=False, highlight=False)
            progress.advance(bar)
    return [read_kept(cell.file) for cell in cells]


def _made(cells: Sequence[Cell], parallel: int, fresh: bool) -> Iterator[Cell]:
    """Make the cells; each comes when it is finished."""
    if parallel == 0:
        for cell in cells:
            _keep(cell)
            yield cell
        return
    processes = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(parallel, processes, _one_thread, max_tasks_per_child=1 if fresh else None) as pool:
        under_way = {pool.submit(_keep, cell): cell for cell in cells}
        try:
            for future in as_completed(under_way):
                future.result()
                yield under_way[future]
        except BaseException:
            pool.shutdown(cancel_futures=True)  # those under way are finished and kept
            raise


def read_kept(file: Path) -> dict[str, Any]:
    """A kept answer. Raises ``ConfigError`` for a file that holds none."""
    return read_object(file, "kept cell")


def _one_thread() -> None:
    """What torch reads when it is imported; a cell without torch is not slowed by it."""
    os.environ["OMP_NUM_THREADS"] = "1"


def _keep(cell: Cell) -> None:
    kept = {"cell": cell.digest, "about": cell.about} | cell.make(**cell.arguments)
    write_text(cell.file, json.dumps(kept, indent=1, sort_keys=True) + "\n")
