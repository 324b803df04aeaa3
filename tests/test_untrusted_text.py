"""What an endpoint, a file or a folder's name says reaches no terminal and no document as anything but text."""

from pathlib import Path

from hiplan.report import markdown_table
from hiplan.report.diagnostics import Diagnostics, Section, write_diagnostics

HTML = "<img src=x onerror=alert(1)>|<b>"
KEPT = "&lt;img src=x onerror=alert(1)&gt;&#124;&lt;b&gt;"


def test_no_html_in_markdown(tmp_path: Path) -> None:
    """A page that shows the document would run it."""
    row = {"kind": "eval", "stage": HTML, "agent": HTML, "panel": HTML, "decoding": HTML, "success": 1.0}
    told = markdown_table([row])
    assert "<" not in told and told.count(KEPT) == 4 and len(told.splitlines()) == 3
    section = Section(title=f"{HTML}\n# a", note=f"{HTML}\n", head=("a", HTML), rows=((f"x\n{HTML}", "1"),))
    write_diagnostics(tmp_path, Diagnostics(title="t", about=f"`{HTML}`\n<b>", sections=(section,)))
    text = (tmp_path / "table.md").read_text()
    assert "<" not in text and text.count(KEPT) == 5 and len(text.splitlines()) == 9
    assert "&lt;img" not in (tmp_path / "diagnostics.json").read_text()
