"""The console of the commands: what models, endpoints and files say, and their names, cannot control a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from hiplan.text import clean


class Terminal(Console):
    """Prints texts without the characters that do not print; rich's own objects, which are ours, as they are."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(_lines(one) if isinstance(one, str) else one for one in objects), **options)

    def error(self, error: Exception) -> None:
        """A person's mistake, in one line."""
        self.print(f"error: {clean(str(error))}", markup=False, highlight=False, soft_wrap=True)


def _lines(text: str) -> str:
    return "\n".join(clean(line) for line in text.split("\n"))
