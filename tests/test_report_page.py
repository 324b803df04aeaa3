"""``report.html``: what it tells, that it needs nothing else, and that untrusted text stays text."""

import json
import re
from pathlib import Path

import pytest
from report_cases import HOSTILE, crafting, hostile, household, metrics

from hiplan.envs.tasks import Panel, named_panel
from hiplan.errors import UserError
from hiplan.report import write_report
from hiplan.report.gains import gains
from hiplan.report.html import duration, headline
from hiplan.task import Task
from hiplan.trace import Episode


class TestPage:
    def write(self, run: Path, *episodes: Episode) -> str:
        (run / "transcripts.jsonl").write_text("".join(f"{e.to_json()}\n" for e in episodes), encoding="utf-8")
        return write_report(run).read_text(encoding="utf-8")

    @pytest.fixture(autouse=True)
    def _templates(self) -> None:
        pytest.importorskip("jinja2")

    def test_everything(self, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in metrics()) + '{"kind": "tr')
        (tmp_path / "config.yaml").write_text("seed: 7\nweights: split # <b>\n")
        (tmp_path / "panels.json").write_text('{"dev": {"hash": "03de99aa", "tasks": 96}}')
        (tmp_path / "times.json").write_text('{"wall_s": 1390}')
        about = {"cpu": "Two Cores <i>", "memory_gib": 23.5, "commit": "178c14a", "versions": {"torch": "2.13.0"}}
        (tmp_path / "environment.json").write_text(json.dumps(about))
        page = self.write(tmp_path, household(), crafting())
        for text in ("20 → 80 %", "25 % [16, 34]", "10,800", "23 min", "03de99aa", "2.13.0", "craft tile", "178c14a"):
            assert text in page, text
        assert "wall time on Two Cores &lt;i&gt;" in page and "memory, GiB" in page
        assert page.count("data:image/png;base64,") == 6  # the curves and each episode's plans, each for two widths
        assert page.count('<source media="(max-width: 640px)"') == 3
        assert "adherence 100%, coverage 100%" in page and "(the environment&#39;s predicate)" in page
        assert page.count("<details") == 2 and page.count("<details open>") == 1
        assert page.index("<details open>") < page.index("put clean mug in drawer</b>")
        assert "weights: split # &lt;b&gt;" in page and "config: seed" in page
        assert not re.search(r"""(?:src|href)="(?!data:)|https?://|url\(|@import|<script""", page)
        assert "min-width: 780px" not in page, "pictures shrink with the screen"

    def test_rows_by_environment_and_the_gain(self, tmp_path: Path) -> None:
        panel = self.measured(tmp_path, base={"greedy": "1000", "t0.7": "1001"}, final={"greedy": "1110"})
        page = self.write(tmp_path, *[Episode(task, "Goal: tree") for task in panel.tasks[:2]])
        cells = [re.sub(r"<[^>]+>", " ", row).split() for row in re.findall(r"<tr.*?</tr>", page, re.S)]
        lines = [" ".join(words) for words in cells]
        assert "base, with plan, t0.7 50 % [0, 100]" in lines and "final, with plan, greedy 75 % [0, 100]" in lines
        assert lines.count("crafting 50 % [9, 91]") == 2 and "household 100 % [34, 100]" in lines
        assert "with plan, greedy +50 [-42, +142]" in lines, "the gain, at one decoding"
        assert "with plan, t0.7 → greedy +25 [-127, +177]" in lines, "and at the best of each end, so called"
        assert "dev: 4 tasks (2 crafting, 2 household), 2 of held-out kinds." in page
        assert "Selected by position, not by outcome: the first 2 of dev" in page

    def test_the_headline_compares_one_decoding(self, tmp_path: Path) -> None:
        rows = [
            {"kind": "eval", "stage": stage, "panel": panel, "agent": "plan", "decoding": decoding, "success": success}
            for stage, panel, decoding, success in (
                ("base", "dev", "greedy", 0.2), ("base", "dev", "t0.7", 0.4), ("base", "heldout", "t0.7", 0.1),
                ("final", "dev", "greedy", 0.6), ("final", "dev", "t0.7", 0.5), ("final", "heldout", "greedy", 0.3),
            )
        ]  # fmt: skip
        assert headline(gains(rows)) == [("20 → 60 %", "dev success, with plan, greedy at start and end")]
        apart = [row for row in rows if row["panel"] == "heldout"]
        assert headline(gains(apart)) == [
            ("10 → 30 %", "heldout success, with plan, t0.7 → greedy, the best on dev at start and end")
        ]
        assert headline([]) == []

    def test_without_the_panels_nothing_is_said_about_them(self, tmp_path: Path) -> None:
        page = self.write(tmp_path, household())
        assert "Selected by position" not in page and "not recorded" not in page

    def test_a_panel_file_that_is_none_is_one_clear_line(self, tmp_path: Path) -> None:
        self.measured(tmp_path, base={"greedy": "1000"}, final={"greedy": "1111"})
        (tmp_path / "panels" / "dev.json").write_text("[]")
        with pytest.raises(UserError, match=r"dev\.json' is not a panel file"):
            write_report(tmp_path)

    def measured(self, run: Path, **stages: dict[str, str]) -> Panel:
        """A run measured on four dev tasks before and after training; returns the panel."""
        panel = named_panel("mixed-dev-0-4")
        (run / "panels").mkdir()
        (run / "panels" / "dev.json").write_text(panel.model_dump_json())
        rows = []
        for stage, tried in stages.items():
            for decoding, bits in tried.items():
                row = {"kind": "eval", "stage": stage, "panel": "dev", "decoding": decoding, "low": 0.0, "high": 1.0}
                rows.append(row | {"success": bits.count("1") / 4, "n": 4, "solved": bits, "iteration": len(rows)})
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return panel

    def test_durations(self) -> None:
        assert list(map(duration, (48.4, 720, 11100))) == ["48 s", "12 min", "3 h 05 min"]

    def test_at_most_twelve_episodes(self, tmp_path: Path) -> None:
        page = self.write(tmp_path, *[Episode(Task(env="forest"), f"Goal: tree {i}") for i in range(14)])
        assert page.count("<details") == 12 and "The first 12 of 14" in page and "<img" not in page

    def test_diagnostics(self, tmp_path: Path) -> None:
        picture = tmp_path / "kinds.png"
        picture.write_bytes(b"\x89PNG")
        table = {"title": "Kinds", "note": HOSTILE, "head": ["what", "count"], "rows": [[HOSTILE, "34.5 % [30, 40]"]]}
        sections = [table | {"picture": "kinds.png"}, {"title": "None", "note": "", "head": [], "rows": []}]
        diagnostics = tmp_path / "diagnostics.json"
        diagnostics.write_text(json.dumps({"title": "Diagnostics <b>", "sections": sections}))
        page = write_report(tmp_path).read_text(encoding="utf-8")
        assert "<h2>Diagnostics &lt;b&gt;</h2>" in page and page.count("<h3>") == 2 and page.count("<img") == 1
        assert page.count("&lt;script&gt;") == 2 and "<script" not in page and "\x1b" not in page
        assert (
            '<td class="number" data-head="count">34.5 % [30, 40]</td>' in page and '<th class="num">count</th>' in page
        )

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"title": ', "Invalid JSON"),
            ('{"sections": []}', "title: Field required"),
            ('{"title": "a", "sections": [{"title": "b", "head": ["c"], "rows": [["d", "e"]]}]}', "row 1 has 2 cells"),
            (
                '{"title": "a", "sections": [{"title": "b", "picture": "../b.png"}]}',
                "is not a file name without a folder",
            ),
            ('{"title": "a", "sections": [{"title": "b", "picture": "b.png"}]}', "'b.png', which is missing"),
        ],
    )
    def test_broken_diagnostics_are_one_clear_line(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "diagnostics.json").write_text(text)
        with pytest.raises(UserError, match=r"diagnostics\.json") as caught:
            write_report(tmp_path)
        assert message in str(caught.value) and "\n" not in str(caught.value)

    def test_hostile_text_is_escaped(self, tmp_path: Path) -> None:
        run = tmp_path / "<i>run<"
        run.mkdir()
        page = self.write(run, hostile(household()))
        assert "<script" not in page and "&lt;script&gt;alert(" in page
        assert "{{ 7 * 7 }}" in page and "<i>" not in page
        assert "\x1b" not in page

    def test_missing_files_are_left_out(self, tmp_path: Path) -> None:
        page = write_report(tmp_path).read_text(encoding="utf-8")
        assert "<h2>" not in page and "<img" not in page and "</html>" in page

    def test_a_broken_line_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "metrics.jsonl").write_text('{"kind": \n{"kind": "train"}\n')
        with pytest.raises(UserError, match="line 1 of"):
            write_report(tmp_path)
        with pytest.raises(UserError, match="no run folder"):
            write_report(tmp_path / "nowhere")

    @pytest.mark.parametrize("text", ['{"a": ', "[1]"])
    def test_a_broken_object_is_named(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "times.json").write_text(text)
        with pytest.raises(UserError, match=r"times\.json.*write it again"):
            write_report(tmp_path)
