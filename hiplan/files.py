"""Reading and writing files. What cannot be read or written is one clear line: the file, what is wrong, and the cure.

Files are UTF-8. A file that is replaced is written beside, flushed to disk and renamed, so a kill leaves the old one or
the new one.
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
"""Of a YAML text, with each alias counted as what it stands for: a few lines of aliases can stand for billions."""


def read_text(path: Path, what: str = "file", wrong: type[UserError] = ConfigError) -> str:
    """The text of a file. ``what``: what it should be. Raises ``wrong`` where it is missing or not UTF-8."""
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
    """What a JSON file holds. Raises ``wrong`` where it is missing or does not parse."""
    try:
        return json.loads(read_text(path, what, wrong))
    except (ValueError, RecursionError) as error:
        why = problem(error)
    raise wrong(f"the {what} {str(path)!r} does not parse: {why}; remove it or write it again")


def read_object(path: Path, what: str = "JSON file", wrong: type[UserError] = ConfigError) -> dict[str, Any]:
    """The JSON object in a file. Raises ``wrong`` where there is none."""
    found = read_json(path, what, wrong)
    if not isinstance(found, dict):
        raise wrong(f"the {what} {str(path)!r} should hold a JSON object, not {type(found).__name__}; write it again")
    return found


def read_yaml(path: Path, what: str = "YAML file") -> Any:
    """What a YAML file holds; ``None`` for an empty one. Raises ``ConfigError``."""
    return parse_yaml(read_text(path, what), f"the {what} {str(path)!r}")


def parse_yaml(text: str, name: str) -> Any:
    """What a YAML text holds. ``name``: how an error calls it. Raises ``ConfigError``."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except ConfigError as error:
        why = str(error)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        why = f"is not YAML at line {mark.line + 1}" if mark else "is not YAML"
    except Exception as error:  # PyYAML raises anything for a value unlike its type, such as !!int "" or 2024-99-99
        why = f"holds a value unlike its type ({type(error).__name__}: {shorten(str(error))}); put text in quotes"
    raise ConfigError(f"{name} {why}")


class _Loader(yaml.SafeLoader):
    """Plain values only, and no more of them than the limits above."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._count, self._depth = 0, 0
        self._sizes: dict[int, int] = {}  # of anchored nodes, by identity; the composer keeps them alive

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        alias, before = self.check_event(yaml.AliasEvent), self._count
        self._count, self._depth = self._count + 1, self._depth + 1
        if self._depth > MAX_YAML_DEPTH:
            raise ConfigError(f"is nested more than {MAX_YAML_DEPTH} levels deep; write it flatter")
        node = super().compose_node(parent, index)
        if alias and id(node) not in self._sizes:
            raise ConfigError("holds an alias for something that the alias is part of; write it out")
        self._count += self._sizes[id(node)] if alias else 0
        if self._count > MAX_YAML_NODES:
            raise ConfigError(f"holds more than {MAX_YAML_NODES:,} values, aliases written out; use fewer aliases")
        self._sizes.setdefault(id(node), self._count - before)
        self._depth -= 1
        return node


def problem(error: Exception) -> str:
    """What is wrong with a text, in one line: of pydantic's problems the first, with its place."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if not isinstance(error, ValidationError):
        return shorten(str(error))
    first = error.errors()[0]
    place = clean(".".join(map(str, first["loc"])))
    return f"{place}: {first['msg']}" if place else first["msg"]


@contextmanager
def saving(target: object, *more: type[Exception]) -> Iterator[None]:
    """Around writing a file or folder: an error of the disk is one clear line. ``more``: others that mean the same."""
    kinds: tuple[type[Exception], ...] = (OSError, *more)
    try:
        yield
    except kinds as error:
        why = getattr(error, "strerror", None) or shorten(str(error))
        raise UserError(f"{str(target)!r} cannot be written: {why}; make room or give another folder") from None


def write_text(path: Path, text: str) -> None:
    """Replace a file's text in one step. Raises ``UserError``."""
    beside = path.with_name(f".{path.name}.tmp")
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        flush(beside)
        os.replace(beside, path)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file; it is on disk when this returns. Raises ``UserError``."""
    with saving(path):
        new = not path.exists()
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())
        if new:
            flush(path.parent)


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of files, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
