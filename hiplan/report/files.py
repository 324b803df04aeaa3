"""Reading what a run wrote: JSON, lines of JSON, episodes. What cannot be read is one clear ``UserError`` line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from hiplan.errors import UserError
from hiplan.text import clean
from hiplan.trace import Episode

T = TypeVar("T")


def read_text(path: Path) -> str:
    """The file's text; empty without the file."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def read_object(path: Path) -> dict[str, Any]:
    """The file's JSON object; empty without the file. ``UserError`` where it holds something else."""
    try:
        found = json.loads(read_text(path) or "{}")
    except ValueError as error:
        raise UserError(f"{str(path)!r} does not parse: {error}; remove it or write it again") from None
    if not isinstance(found, dict):
        raise UserError(f"{str(path)!r} should hold a JSON object; remove it or write it again")
    return found


def read_lines(path: Path, read: Callable[[str], T]) -> list[T]:
    """What the lines of a file say; a last line cut short, as in a run that was stopped, is left out."""
    lines = [line for line in read_text(path).split("\n") if line.strip()]
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(read(line))
        except ValueError as error:
            if number < len(lines):
                what = f"line {number} of {str(path)!r} does not parse: {problem(error)}; remove that line"
                raise UserError(what) from None
    return found


def read_episodes(path: Path) -> list[Episode]:
    """The episodes of a file with one per line."""
    return read_lines(path, Episode.from_json)


def problem(error: ValueError) -> str:
    """What is wrong with a text, in one line: of pydantic's problems the first, with its place."""
    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    first = error.errors()[0]
    place = clean(".".join(map(str, first["loc"])))
    return f"{place}: {first['msg']}" if place else first["msg"]
