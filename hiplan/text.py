"""Untrusted text made safe to keep and to show: models, environments, endpoints, files and folders may say anything."""

from __future__ import annotations

from html import escape


def printable(text: str) -> str:
    """Untrusted text as any file can hold it: lone surrogates become ``?``."""
    return text.encode("utf-8", "replace").decode()


def clean(text: str) -> str:
    """One printable line: white space becomes spaces, other characters that do not print are spelt out.

    So no escape sequence reaches a terminal.
    """
    return "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)


def markdown(text: str) -> str:
    """One line of text for a Markdown document or table: no HTML in it, and no end of a cell."""
    return escape(clean(text), quote=False).replace("|", "&#124;")


def shown(value: object, width: int = 60) -> str:
    """A value as an error message quotes it."""
    try:
        return shorten(repr(value), width)
    except Exception:  # a number of 5,000 digits has no text
        return f"{type(value).__name__} that cannot be shown"


def shorten(text: str, width: int = 90) -> str:
    """One printable line of at most so many characters."""
    line = clean(text[: width + 1])
    return line if len(line) <= width else line[: width - 1] + "…"
