"""The console of the commands, which strips control characters from untrusted text."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from hiplan.text import clean


class Terminal(Console):
    """Prints strings without control characters; rich objects, which hiplan makes from cleaned text, are unchanged."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(_lines(one) if isinstance(one, str) else one for one in objects), **options)

    def error(self, error: Exception) -> None:
        """Print a user error in one line."""
        self.print(f"error: {clean(str(error))}", markup=False, highlight=False, soft_wrap=True)


def _lines(text: str) -> str:
    return "\n".join(clean(line) for line in text.split("\n"))
