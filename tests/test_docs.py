"""The documentation's sources are complete, and the check of the built site sees what it promises to see."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_surface import SURFACE

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
CHECK = REPOSITORY / ".ci" / "check_site.py"
RECORDS = sorted(path.name for path in (DOCS / "decisions").glob("[0-9]*.md"))
pytestmark = pytest.mark.skipif(not CHECK.exists(), reason="not in a checkout of the repository")


def pages(nav: list[Any]) -> list[str]:
    """The files of a navigation, in order."""
    found: list[str] = []
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            found += pages(value) if isinstance(value, list) else [value]
    return found


def test_every_page_is_in_the_navigation_once() -> None:
    nav = tomllib.loads((REPOSITORY / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    assert sorted(pages(nav)) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_decision_records_are_numbered_without_gaps_and_indexed() -> None:
    index = (DOCS / "decisions" / "index.md").read_text(encoding="utf-8")
    for number, name in enumerate(RECORDS, 1):
        title = (DOCS / "decisions" / name).read_text(encoding="utf-8").splitlines()[0]
        assert name.startswith(f"{number:04d}-")
        assert title.startswith(f"# {number}. ")
        assert f"| {number} | [{title.partition('. ')[2]}]({name}) |" in index
    assert index.count("](0") == len(RECORDS) > 0


def test_the_api_page_lists_every_name_that_hiplan_exports() -> None:
    """The other packages list theirs in ``__all__``, which is read; the names of these are loaded lazily."""
    for module in ("hiplan", "hiplan.training"):
        text = (DOCS / "api" / f"{module.rpartition('.')[2]}.md").read_text(encoding="utf-8")
        listed = [line.strip().removeprefix("- ") for line in text.splitlines() if line.strip().startswith("- ")]
        assert sorted(listed) == sorted(SURFACE[module].split())
    for module in SURFACE:
        page = DOCS / "api" / f"{module.rpartition('.')[2]}.md"
        assert f"::: {module}\n" in page.read_text(encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "page").mkdir()
    (tmp_path / "picture.png").touch()
    (tmp_path / "index.html").write_text('<a href="page/">p</a> <a href="https://example.org/">outside</a>')
    (tmp_path / "page" / "index.html").write_text('<img src="../picture.png"> <a href="/index.html#top">home</a>')
    return tmp_path


def check(site: Path) -> tuple[int, str]:
    done = subprocess.run([sys.executable, CHECK, site], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_a_site_with_whole_links_passes(site: Path) -> None:
    code, said = check(site)
    assert code == 0 and "nothing is loaded from the network" in said


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ('<a href="nowhere/">x</a>', "'nowhere/' leads to no file"),
        ('<a href="page/other.html#part">x</a>', "'page/other.html#part' leads to no file"),
        ('<img src="missing.png">', "'missing.png' leads to no file"),
        ('<img srcset="picture.png 1x, big.png 2x">', "'big.png' leads to no file"),
        ('<script src="//cdn.example/x.js"></script>', "loads '//cdn.example/x.js' from the network"),
        ('<link rel="preload stylesheet" href="https://fonts.example/f.css">', "loads 'https://fonts.example/f.css'"),
        ("<style>@import 'https://fonts.example/f.css';</style>", "loads 'https://fonts.example/f.css'"),
        ('<p style="background: url(https://example.org/b.png)">', "loads 'https://example.org/b.png'"),
        ('<pre class="mermaid">graph</pre>', "mermaid' from the network"),
    ],
)
def test_each_problem_of_a_site_is_named_with_its_line(site: Path, html: str, problem: str) -> None:
    (site / "index.html").write_text(f"<html>\n{html}")
    code, said = check(site)
    assert code == 1
    assert said.startswith(f"{site / 'index.html'}:2: ") and problem in said


def test_a_style_sheet_may_not_load_from_the_network(site: Path) -> None:
    (site / "style.css").write_text("body { background: url('https://example.org/b.png') }")
    assert check(site) == (1, f"{site / 'style.css'}: loads 'https://example.org/b.png' from the network\n")


def test_a_folder_that_is_no_site_is_refused(tmp_path: Path) -> None:
    code, said = check(tmp_path)
    assert code == 2 and "a folder with an index.html" in said


def test_the_citation_is_of_this_version() -> None:
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["title"], cited["version"]) == (declared["name"], declared["version"])
    assert cited["license"] == declared["license"]
