"""Make untrusted text safe to store and to show: text of models, environments, endpoints and files, and file names."""

from __future__ import annotations

from html import escape


def printable(text: str) -> str:
    """Text that can be stored as UTF-8: lone surrogates become ``?``."""
    return text.encode("utf-8", "replace").decode()


def clean(text: str) -> str:
    """One printable line without escape sequences: white space becomes spaces, other control characters escapes."""
    return "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)


def markdown(text: str) -> str:
    """One line of text for a Markdown document or table cell; HTML and ``|`` are escaped."""
    return escape(clean(text), quote=False).replace("|", "&#124;")


def shown(value: object, width: int = 60) -> str:
    """The ``repr`` of a value for an error message, on one line of at most ``width`` characters."""
    try:
        return shorten(repr(value), width)
    except Exception:  # a number of 5,000 digits has no text
        return f"a {type(value).__name__} that cannot be shown"


def shorten(text: str, width: int = 90) -> str:
    """One printable line of at most ``width`` characters."""
    line = clean(text[: width + 1])
    return line if len(line) <= width else line[: width - 1] + "…"
