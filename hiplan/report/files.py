"""Read the files of a run: JSON, JSON lines, episodes. Invalid files raise ``UserError`` with the line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, FiniteFloat, ValidationError

from hiplan import files
from hiplan.errors import UserError
from hiplan.files import problem
from hiplan.trace import Episode
from hiplan.training.metrics import check_row

T = TypeVar("T")


class _Times(BaseModel):
    wall_s: FiniteFloat | None = None


def read_text(path: Path) -> str:
    """The file's text; empty if there is no file."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def read_object(path: Path) -> dict[str, Any]:
    """The file's JSON object; empty if there is no file. Raises ``UserError`` if it is anything else."""
    return files.read_object(path, wrong=UserError) if path.is_file() else {}


def read_lines(path: Path, read: Callable[[str], T]) -> list[T]:
    """The parsed lines of a file, without an incomplete last line of a stopped run. Raises ``UserError`` for others."""
    lines = [line for line in read_text(path).split("\n") if line.strip()]
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(read(line))
        except (ValueError, RecursionError) as error:
            if number < len(lines):
                what = f"line {number} of {str(path)!r} does not parse: {problem(error)}; delete that line"
                raise UserError(what) from None
    return found


def read_episodes(path: Path) -> list[Episode]:
    """The episodes of a file with one episode per line. Raises ``UserError`` for an invalid line."""
    return read_lines(path, Episode.from_json)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``. Raises ``UserError`` for a training or evaluation row that is not valid."""
    rows = read_lines(path, json.loads)
    for number, row in enumerate(rows, 1):
        try:
            check_row(row)
        except ValidationError as error:
            raise UserError(f"row {number} of {str(path)!r} is not valid: {problem(error)}; delete that row") from None
    return rows


def read_times(path: Path) -> dict[str, Any]:
    """The content of a ``times.json``; empty if there is no file. Raises ``UserError`` if it is not valid."""
    times = read_object(path)
    try:
        _Times.model_validate(times)
    except ValidationError as error:
        raise UserError(f"{str(path)!r} is not valid: {problem(error)}; delete it") from None
    return times
