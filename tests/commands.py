"""Commands in the process of the tests: what they print, and how they end."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Done:
    """A command that has ended: its exit code, and what it wrote to standard output and standard error."""

    code: int
    out: str
    err: str


Call = Callable[..., Done]
"""``call("play", stage)`` is ``hiplan play STAGE``; ``app``: another typer app. A fixture of ``conftest.py``."""


def one_line(done: Done, said: str) -> None:
    """A user's mistake: exit code 2, nothing printed, and one line that says it."""
    lines = done.err.strip().splitlines()
    assert done.code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and said in lines[0], done.err
