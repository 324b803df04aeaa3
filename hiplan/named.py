"""Look up functions and objects by name: hiplan's own, or a user's as ``module:name`` or ``file.py:name``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hiplan.errors import ConfigError, HiplanError, UserError
from hiplan.text import shorten

T = TypeVar("T")
OURS = f"{Path(__file__).parent}{os.sep}"


def named(name: str, known: Mapping[str, T], what: str) -> T:
    """The entry of ``known`` with that name, or the object that ``module:name`` or ``file.py:name`` refers to.

    Runs the code of that module or file. ``what`` names the kind of object in errors. Raises ``ConfigError`` if there
    is no such object.
    """
    if name in known:
        return known[name]
    home, colon, attribute = name.rpartition(":")
    if not (colon and home and attribute):
        raise ConfigError(
            f"unknown {what} {name!r}; expected one of {', '.join(known)}, or 'module:name' or 'file.py:name'"
        )
    module = _from_file(Path(home), what) if home.endswith(".py") else _from_path(home, what)
    try:
        found: T = getattr(module, attribute)
    except AttributeError:
        raise ConfigError(f"{home!r} has no attribute {attribute!r}; expected {name!r} to be a {what}") from None
    return found


def name_of(value: T, known: Mapping[str, T]) -> str | None:
    """The name of a value in ``known``; ``None`` if it is not there."""
    return next((name for name, other in known.items() if other is value), None)


def _from_path(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"the module {name!r} of the {what} cannot be imported ({error}); install it, or give 'file.py:name'"
        ) from None
    except Exception as error:
        raise ConfigError(f"the module {name!r} of the {what} cannot be run: {error_with_place(error)}") from error


def _from_file(path: Path, what: str) -> Any:
    """The file as a module; each file is loaded once."""
    if not path.is_file():
        raise ConfigError(f"there is no file {str(path)!r}; expected a Python file with a {what}")
    name = f"hiplan_user_{path.resolve().stem}_{abs(hash(path.resolve()))}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise ConfigError(f"{str(path)!r} of the {what} cannot be run: {error_with_place(error)}") from error
    return sys.modules[name]


@contextmanager
def calling(what: str) -> Iterator[None]:
    """Convert exceptions of a user's function to a ``UserError`` with its place; ``what`` names the function."""
    try:
        yield
    except HiplanError:
        raise
    except Exception as error:
        raise UserError(f"the {what} raised {error_with_place(error)}") from error


def error_with_place(error: Exception) -> str:
    """An error in a user's code as one line, with the line number in the first file that is not hiplan's."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(("<frozen", OURS))]
    place = next((f"{f.filename}, line {f.lineno}" for f in frames[::-1] if f.filename == frames[0].filename), "")
    return shorten(f"{type(error).__name__}: {error}", 200) + (f" ({place})" if place else "")
