"""``diagnostics.json``: tables with a note and a picture, written by a study and shown by the report page."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from hiplan.errors import UserError
from hiplan.files import problem, write_text
from hiplan.report.files import read_text
from hiplan.text import markdown

NUMBER = re.compile(r"[-+]?\d[\d.,]*( ?%)?( ?\[.*\]| \(.*\))?|[-–]?")  # also with its interval; or nothing there


class Section(BaseModel):
    """A table, its note, and a picture: the name of a file beside ``diagnostics.json``."""

    model_config = ConfigDict(frozen=True)

    title: str
    note: str = ""
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    picture: str | None = None

    @model_validator(mode="after")
    def _even(self) -> Section:
        for number, row in enumerate(self.rows, 1):
            if len(row) != len(self.head):
                raise ValueError(f"row {number} has {len(row)} cells, the head {len(self.head)}")
        if self.picture is not None and Path(self.picture).name != self.picture:
            raise ValueError(f"picture {self.picture!r} should be the name of a file in the run's folder")
        return self

    def numeric(self) -> list[bool]:
        """Per column, whether it holds numbers alone."""
        return [all(NUMBER.fullmatch(row[i].strip()) for row in self.rows) for i in range(len(self.head))]


class Diagnostics(BaseModel):
    """What the file holds."""

    model_config = ConfigDict(frozen=True)

    title: str
    about: str = ""
    sections: tuple[Section, ...] = ()


def read_diagnostics(run: Path) -> Diagnostics | None:
    """What the run's ``diagnostics.json`` holds; ``None`` without one. ``UserError`` where it cannot be used."""
    path = run / "diagnostics.json"
    if not path.is_file():
        return None
    try:
        found = Diagnostics.model_validate_json(read_text(path))
    except ValidationError as error:
        raise UserError(f"{str(path)!r} cannot be used: {problem(error)}; remove it or write it again") from None
    for section in found.sections:
        if section.picture and not (run / section.picture).is_file():
            raise UserError(f"{str(path)!r} names the picture {section.picture!r}, which is not there; write it again")
    return found


def write_diagnostics(folder: Path, found: Diagnostics) -> str:
    """Write ``diagnostics.json`` and, for documents, ``table.md`` into the folder; returns the latter's text."""
    write_text(folder / "diagnostics.json", found.model_dump_json(indent=1) + "\n")
    parts = [markdown(found.about)]
    for section in found.sections:
        title = markdown(section.title)
        picture = [f"![{title}]({section.picture})"] if section.picture else []
        parts += [f"### {title}", markdown(section.note), markdown_table(section), *picture]
    text = "\n\n".join(parts) + "\n"
    write_text(folder / "table.md", text)
    return text


def markdown_table(section: Section) -> str:
    """The section's table for documents."""
    rule = ["---:" if numeric else "---" for numeric in section.numeric()]
    rows = (section.head, rule, *section.rows)
    return "\n".join(f"| {' | '.join(map(markdown, row))} |" for row in rows)
