"""``hiplan inspect`` as a person would call it, and what importing reports costs."""

import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from report_cases import by_hand, hostile, household
from rich.console import Console
from typer.testing import CliRunner

from hiplan.cli import app as cli
from hiplan.errors import UserError
from hiplan.report.overview import overview
from hiplan.trace import Episode, Verdict


class TestInspect:
    """``hiplan inspect``, as a person would call it."""

    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        found = Episode.from_json(household().to_json())
        found.observation += " A line\u2028that goes on."  # ends a line for str.splitlines, not for JSON lines
        lines = (episode.to_json() + "\n" for episode in (found, by_hand(), hostile(household())))
        (tmp_path / "transcripts.jsonl").write_text("".join(lines), encoding="utf-8")
        return tmp_path

    def call(self, *arguments: object, code: int = 0) -> str:
        done = CliRunner().invoke(cli.app, ["inspect", *map(str, arguments)], env={"COLUMNS": "80"})
        if isinstance(done.exception, UserError):
            return str(done.exception)
        assert done.exit_code == code, done.output
        return done.output

    def test_a_table_then_the_first_episode(self, run: Path) -> None:
        text = self.call(run)
        rows = [line.split() for line in text.splitlines() if re.match(r" +\d  ", line)]
        assert rows[0] == [*"0 put clean mug in drawer success 11 3 100% 100%".split()]
        assert rows[1] == [*"1".split(), *rows[1][1:-5], *"stuck 8 1 75% 50%".split()]
        assert text.index("coverage") < text.index("Task  put clean mug in drawer")
        assert text.endswith("This is episode 0. Show another one with --index NUMBER.\n")
        assert max(map(len, text.splitlines())) <= 80

    def test_one_of_them(self, run: Path) -> None:
        text = self.call(run, "--index", 1)
        assert text.startswith("Task  forest-") and "stability" in text and "--index" not in text
        assert self.call(run / "transcripts.jsonl", "--index", 1) == text

    def test_only_those_with_a_verdict(self, run: Path) -> None:
        text = self.call(run, "--verdict", "off plan")
        assert text.startswith("Task  forest-"), "the only one"
        assert "no action 'off plan' in episode 0" in self.call(run, "--verdict", "off plan", "--index", 0)
        assert "no action 'repeated' in any of the 3" in self.call(run, "--verdict", "repeated")
        assert "off plan" in self.call(run, "--verdict", "astray", code=2)

    def test_hostile_text_stays_text(self, run: Path) -> None:
        text = self.call(run)
        assert "\x1b" not in text and "[red]paint[/red]" in " ".join(text.split())
        assert not re.search(r"^Revision 9", self.call(run, "--index", 2), re.M)

    def test_what_cannot_be_shown(self, run: Path) -> None:
        assert "has no episode 7; expected 0 to 2" in self.call(run, "--index", 7)
        assert "no episodes at" in self.call(run / "nowhere")
        (run / "other.jsonl").write_text('{"kind": "train"}\n' * 2)
        assert "line 1 of" in (message := self.call(run / "other.jsonl")) and "\n" not in message

    def test_help_names_every_verdict_and_score(self) -> None:
        text = self.call("--help")
        for name in (*Verdict, "adherence", "coverage", "order violations", "drift", "stability"):
            assert f"    {name}  " in text

    def test_long_files_are_cut(self) -> None:
        console = Console(file=StringIO(), width=80)
        console.print(overview(dict(enumerate([by_hand()] * 50))))
        assert "and 10 more" in console.file.getvalue()


def test_importing_reports_draws_in_nothing_heavy() -> None:
    code = "import sys, hiplan.report; print([m for m in ('matplotlib', 'torch', 'jinja2', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
