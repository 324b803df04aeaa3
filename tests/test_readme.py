"""README's Python runs as it stands: each block in a namespace of its own, in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def blocks(text: str) -> list[tuple[int, str]]:
    """The line where each Python block begins, and its code."""
    found: list[tuple[int, str]] = []
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if line.strip() == "```python":
            body = []
            for _, inner in lines:
                if inner.strip() == "```":
                    break
                body.append(inner)
            found.append((number, "\n".join(body)))
    return found


BLOCKS = blocks(README.read_text(encoding="utf-8")) if README.exists() else []


def test_readme_shows_python() -> None:
    assert BLOCKS, f"no python block in {README}"
    assert README.read_text(encoding="utf-8").count("```python") == len(BLOCKS)


@pytest.mark.parametrize(("line", "code"), BLOCKS, ids=[f"line {line}" for line, _ in BLOCKS])
def test_python_in_readme_runs(line: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    padded = "\n" * line + code  # so that a traceback names the line of README
    exec(compile(padded, str(README), "exec"), {"__name__": "__main__"})
