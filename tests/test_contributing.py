"""CONTRIBUTING's Python runs as it stands: each block in a namespace of its own, in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_readme import blocks

PAGE = Path(__file__).parent.parent / "CONTRIBUTING.md"
BLOCKS = blocks(PAGE.read_text(encoding="utf-8"))


def test_every_extension_point_has_an_example() -> None:
    sections = [part for part in PAGE.read_text(encoding="utf-8").split("\n## ") if part.startswith("Adding ")]
    assert len(sections) == 4
    for section in sections:
        assert section.count("```python") == 1, f"{section.splitlines()[0]!r} has no example"


@pytest.mark.parametrize(("line", "code"), BLOCKS, ids=[f"line {line}" for line, _ in BLOCKS])
def test_python_in_contributing_runs(line: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "assert " in code, "an example without an assertion shows nothing"
    padded = "\n" * line + code  # so that a traceback names the line of CONTRIBUTING
    exec(compile(padded, str(PAGE), "exec"), {"__name__": "__main__"})
