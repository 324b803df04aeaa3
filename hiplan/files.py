"""Read and write files. Errors are one line: the file, what is wrong, and the cure.

All files are UTF-8. Replacing a file is atomic: the new content goes to a temporary file, is flushed to disk, and is
then renamed, so that a kill leaves either the old or the new content.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hiplan.errors import ConfigError, UserError
from hiplan.text import clean, shorten

MAX_YAML_NODES, MAX_YAML_DEPTH = 10_000, 50
"""Limits of a YAML text. An alias counts as the nodes it refers to: a few lines of aliases can expand to billions."""


def read_text(path: Path, what: str = "file", wrong: type[UserError] = ConfigError) -> str:
    """The text of a file. ``what`` names the kind of file in errors. Raises ``wrong`` if it is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise wrong(f"no {what} at {str(path)!r}") from None
    except OSError as error:
        raise wrong(f"the {what} {str(path)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise wrong(
            f"the {what} {str(path)!r} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None


def read_json(path: Path, what: str = "JSON file", wrong: type[UserError] = ConfigError) -> Any:
    """The content of a JSON file. Raises ``wrong`` if the file is missing or does not parse."""
    try:
        return json.loads(read_text(path, what, wrong))
    except (ValueError, RecursionError) as error:
        why = problem(error)
    raise wrong(f"the {what} {str(path)!r} does not parse: {why}; remove it or write it again")


def read_object(path: Path, what: str = "JSON file", wrong: type[UserError] = ConfigError) -> dict[str, Any]:
    """The JSON object in a file. Raises ``wrong`` if the file is missing or holds anything else."""
    found = read_json(path, what, wrong)
    if not isinstance(found, dict):
        raise wrong(f"the {what} {str(path)!r} should hold a JSON object, not {type(found).__name__}; write it again")
    return found


def read_yaml(path: Path, what: str = "YAML file") -> Any:
    """The content of a YAML file; ``None`` if it is empty. Raises ``ConfigError`` if it cannot be read."""
    return parse_yaml(read_text(path, what), f"the {what} {str(path)!r}")


def parse_yaml(text: str, name: str) -> Any:
    """The content of a YAML text. ``name`` is what errors call it. Raises ``ConfigError`` if it does not parse."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except ConfigError as error:
        why = str(error)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        why = f"is not YAML at line {mark.line + 1}" if mark else "is not YAML"
    except Exception as error:  # PyYAML raises anything for a value unlike its type, such as !!int "" or 2024-99-99
        why = f"has a value that does not fit its type ({type(error).__name__}: {shorten(str(error))}); quote text"
    raise ConfigError(f"{name} {why}")


class _Loader(yaml.SafeLoader):
    """Loads plain values only, within the limits above."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._count, self._depth = 0, 0
        self._sizes: dict[int, int] = {}  # node counts by ``id(node)``; the composer keeps anchored nodes alive

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        alias, before = self.check_event(yaml.AliasEvent), self._count
        self._count, self._depth = self._count + 1, self._depth + 1
        if self._depth > MAX_YAML_DEPTH:
            raise ConfigError(f"is nested more than {MAX_YAML_DEPTH} levels deep; use fewer levels")
        node = super().compose_node(parent, index)
        if alias and id(node) not in self._sizes:
            raise ConfigError("has an alias that refers to a node around it; replace the alias by its value")
        self._count += self._sizes[id(node)] if alias else 0
        if self._count > MAX_YAML_NODES:
            raise ConfigError(f"has more than {MAX_YAML_NODES:,} values after expanding aliases; use fewer aliases")
        self._sizes.setdefault(id(node), self._count - before)
        self._depth -= 1
        return node


def problem(error: Exception) -> str:
    """One line that says why a text does not parse; for a ``ValidationError``, its first problem and the field."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if not isinstance(error, ValidationError):
        return shorten(str(error))
    first = error.errors()[0]
    place = clean(".".join(map(str, first["loc"])))
    return f"{place}: {first['msg']}" if place else first["msg"]


@contextmanager
def saving(target: object, *more: type[Exception]) -> Iterator[None]:
    """Convert disk errors while writing ``target`` to a ``UserError``. ``more``: further exceptions to convert."""
    kinds: tuple[type[Exception], ...] = (OSError, *more)
    try:
        yield
    except kinds as error:
        why = getattr(error, "strerror", None) or shorten(str(error))
        raise UserError(f"{str(target)!r} cannot be written: {why}; free disk space or choose another folder") from None


def write_text(path: Path, text: str) -> None:
    """Replace a file's text atomically. Raises ``UserError`` if it cannot be written."""
    beside = path.with_name(f".{path.name}.tmp")
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        flush(beside)
        os.replace(beside, path)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file and flush it to disk. Raises ``UserError`` if it cannot be written."""
    with saving(path):
        new = not path.exists()
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())
        if new:
            flush(path.parent)


def flush(path: Path) -> None:
    """Flush a file's content, or a folder's directory entry, to disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
