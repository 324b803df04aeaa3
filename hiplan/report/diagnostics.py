"""``diagnostics.json``: tables with notes and figures, which a study writes and the report page shows."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from hiplan.errors import UserError
from hiplan.files import problem, write_text
from hiplan.report.files import read_text
from hiplan.text import markdown

NUMBER = re.compile(r"[-+]?\d[\d.,]*( ?%)?( ?\[.*\]| \(.*\))?|[-–]?")  # with or without an interval; or empty


class Section(BaseModel):
    """A table with a note. ``picture``: the name of an image file in the folder of ``diagnostics.json``."""

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
                raise ValueError(f"row {number} has {len(row)} cells, expected {len(self.head)} as in the head")
        if self.picture is not None and Path(self.picture).name != self.picture:
            raise ValueError(f"picture {self.picture!r} is not a file name without a folder")
        return self

    def numeric(self) -> list[bool]:
        """Per column, whether all its cells are numbers."""
        return [all(NUMBER.fullmatch(row[i].strip()) for row in self.rows) for i in range(len(self.head))]


class Diagnostics(BaseModel):
    """The content of ``diagnostics.json``."""

    model_config = ConfigDict(frozen=True)

    title: str
    about: str = ""
    sections: tuple[Section, ...] = ()


def read_diagnostics(run: Path) -> Diagnostics | None:
    """The content of the run's ``diagnostics.json``; ``None`` without one. Raises ``UserError`` if it is not valid."""
    path = run / "diagnostics.json"
    if not path.is_file():
        return None
    try:
        found = Diagnostics.model_validate_json(read_text(path))
    except ValidationError as error:
        raise UserError(f"{str(path)!r} is not valid: {problem(error)}; delete it or write it again") from None
    for section in found.sections:
        if section.picture and not (run / section.picture).is_file():
            raise UserError(
                f"{str(path)!r} refers to the picture {section.picture!r}, which is missing; run the study again"
            )
    return found


def write_diagnostics(folder: Path, found: Diagnostics) -> str:
    """Write ``diagnostics.json`` and ``table.md`` to the folder; returns the text of ``table.md``."""
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
    """The section's table in Markdown."""
    rule = ["---:" if numeric else "---" for numeric in section.numeric()]
    rows = (section.head, rule, *section.rows)
    return "\n".join(f"| {' | '.join(map(markdown, row))} |" for row in rows)
