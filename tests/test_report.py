"""Reports are made from real episodes and read as a person would read them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from hiplan import cli
from hiplan.coordination import scores
from hiplan.coordination.graph import MARKS
from hiplan.envs import make_env
from hiplan.errors import UserError
from hiplan.executors import OracleExecutor
from hiplan.model import ScriptedModel
from hiplan.plan import Plan, PlanStep, ReplanKind, ReplanReason
from hiplan.planners import NoPlanner, OraclePlanner, Planner, PlannerProtocol
from hiplan.prompts import BRIEF
from hiplan.report import (
    draw_curves,
    draw_plan,
    markdown_table,
    print_transcript,
    results_table,
    step_states,
    transcript,
    write_report,
)
from hiplan.report.curves import smooth, stage_spans
from hiplan.report.graph import STYLES, panels
from hiplan.report.overview import overview
from hiplan.report.tables import cell, table
from hiplan.report.transcript import score_words
from hiplan.rollout import Job, rollout
from hiplan.task import Task
from hiplan.text import clean
from hiplan.trace import Episode, PlanRecord, StopReason, Turn, Verdict

HOSTILE = (
    "<script>alert('x')</script> [red]paint[/red] [/] \x1b[31mred\x1b[0m {{ 7 * 7 }} $\\frac$\nRevision 9  all good"
)


def play(planner: PlannerProtocol | None = None, texts: tuple[str, ...] = (), **task: Any) -> Episode:
    env = task.pop("env", "household")
    job = Job(Task(env=env, params=task), planner or OraclePlanner(), OracleExecutor())
    return rollout([job], ScriptedModel(texts), make_env)[0]


@pytest.fixture(scope="module")
def household() -> Episode:
    """Looks for the mug in four places: three revisions."""
    return play(seed=3, kind="clean", places=5)


@pytest.fixture(scope="module")
def crafting() -> Episode:
    """A plan whose steps branch; no revision."""
    return play(env="crafting", seed=3, depth=3)


def steps(*lines: tuple[int, str, tuple[int, ...]]) -> Plan:
    return Plan(steps=tuple(PlanStep(id=i, description=text, after=after) for i, text, after in lines))


def turn(
    index: int, step: int | None, verdict: Verdict = Verdict.ON_PLAN, refused: bool = False, done: tuple[int, ...] = (),
    failed: tuple[int, ...] = (),
) -> Turn:  # fmt: skip
    return Turn(index, f"act {index}", f"seen {index}", 0.0, refused, verdict, step, done=done, failed=failed)


FIRST = steps((1, "get wood", ()), (2, "get stone", ()), (3, "make axe", (1, 2)), (4, "sell axe", (3,)))
SECOND = steps((1, "get wood", ()), (2, "get a big stone", ()), (5, "make hammer", (1, 2)), (3, "make axe", (5,)))


def by_hand() -> Episode:
    """Wood, then stone, then the axe fails; the plan is kept, then revised; the episode gets stuck."""
    failed = ReplanReason(kind=ReplanKind.STEP_FAILED, step=3)
    return Episode(
        Task(env="forest"),
        "A forest.",
        plans=[PlanRecord(0, FIRST), PlanRecord(3, FIRST, failed, kept=True), PlanRecord(4, SECOND, failed)],
        turns=[
            turn(0, 1, done=(1,)),
            turn(1, 2, done=(2,)),
            turn(2, 3, refused=True, failed=(3,)),
            turn(3, 3, refused=True, failed=(3,)),
            turn(4, 2, done=(2,)),
            turn(5, 5, refused=True, failed=(5,)),
            turn(6, 3, Verdict.PREMATURE),
            turn(7, None, Verdict.OFF_PLAN),
        ],
        stop=StopReason.STUCK,
    )


class TestStates:
    def test_by_hand(self) -> None:
        assert step_states(by_hand()) == [
            {1: "done", 2: "done", 3: "failed", 4: "open"},
            {1: "done", 2: "done", 3: "failed", 4: "open"},
            {1: "done", 2: "done", 5: "open", 3: "active"},  # 2 was reworded and done again; 5 failed, but not now
        ]

    def test_a_failed_step_recovers_when_it_is_done(self) -> None:
        episode = by_hand()
        episode.plans.pop()
        episode.turns = [*episode.turns[:3], turn(3, 3, done=(3,)), turn(4, 4)]
        assert step_states(episode)[-1] == {1: "done", 2: "done", 3: "done", 4: "active"}

    def test_what_is_done_stays_done_where_number_and_text_stay(self) -> None:
        episode = by_hand()
        episode.turns = [turn(0, 3, done=(1, 2, 3, 4))]
        episode.plans = [PlanRecord(0, FIRST), PlanRecord(1, SECOND, ReplanReason(kind=ReplanKind.USED_UP))]
        first, second = step_states(episode)
        assert set(first.values()) == {"done"}
        assert second == {
            1: "done",
            2: "open",
            5: "open",
            3: "done",
        }  # 2 reads otherwise; 3 has the same number and text

    def test_success_completes_what_was_carried_out(self) -> None:
        last = (turn(0, 1, done=(1,)), turn(1, 2), turn(2, 3, refused=True))
        episode = Episode(Task(env="forest"), "", plans=[PlanRecord(0, FIRST)], turns=list(last))
        assert step_states(episode) == [{1: "done", 2: "open", 3: "active", 4: "open"}]
        episode.turns.append(Turn(3, "act", "", 1.0, False, Verdict.OFF_PLAN))
        episode.stop = StopReason.TERMINATED
        assert step_states(episode) == [{1: "done", 2: "done", 3: "active", 4: "open"}]

    def test_real_episodes(self, household: Episode, crafting: Episode) -> None:
        assert [set(s.values()) for s in step_states(household)] == [{"failed", "open"}] * 3 + [{"done"}]
        assert step_states(crafting) == [dict.fromkeys(range(1, 6), "done")]
        assert step_states(play(NoPlanner(), seed=3, kind="clean", places=5)) == [{}]


class TestTranscript:
    def test_tells_the_story(self, household: Episode) -> None:
        text = transcript(household)
        assert text.startswith("Task  put clean mug in drawer  household-")
        first, second = text.index("      1. find mug at sofa 1\n"), text.index("Turn 1  go to sofa 1\n")
        assert first < second < text.index("Revision 1  after turn 1  because step 1 (find mug at sofa 1) failed")
        assert "added 4; rewired 2; kept 2, 3; dropped 1\n" in text
        assert "+ 4. find mug at safe 1\n" in text and "− 1. find mug at sofa 1  failed\n" in text
        assert "        2. clean mug at sink 1  after 4\n" in text
        assert (
            "on plan (the environment's predicate) · step 3 (put mug in drawer 1) · done 3 · reward +1\n"
            "      │ You move mug 1 to drawer 1." in text
        )
        assert "on plan (the environment's predicate) · step 1 (find mug at sofa 1) · failed 1\n" in text
        assert text.endswith(
            "End  success  terminated after 11 turns\n"
            "      reward 1; 3 revisions\n"
            "      adherence 100%  11 of 11 actions on plan\n"
            "      coverage 100%  3 of 3 steps of the last plan done\n"
            "      order violations 0  actions before their step's turn\n"
            "      drift 0  longest run off plan\n"
            "      stability 3.0  edits per revision, fewer is steadier\n"
        )
        assert [int(n) for n in re.findall(r"^Turn (\d+)", text, re.M)] == list(range(1, 12))

    def test_what_changed(self) -> None:
        text = transcript(by_hand())
        assert "Plan kept  after turn 3  because step 3 (make axe) failed" in text
        assert "added 5; reworded 2; rewired 3; kept 1, 3; dropped 4\n" in text
        assert "✓ 1. get wood\n" in text and "~ 2. get a big stone\n          was: get stone\n" in text
        assert "− 4. sell axe  after 3\n" in text
        assert "premature · step 3 (make axe)" in text and "      off plan\n" in text and "· refused" in text
        assert "no success  stuck after 8 turns" in text

    def test_only_scores_that_exist(self) -> None:
        episode = by_hand()
        names = [name for name, _, _ in score_words(scores(episode))]
        assert names == ["adherence", "coverage", "order violations", "drift", "stability"]
        episode.plans.pop()
        assert [name for name, _, _ in score_words(scores(episode))] == names[:4]
        assert score_words(scores(Episode(Task(env="forest"), "", plans=[PlanRecord(0, FIRST)]))) == [
            ("coverage", "0%", "0 of 4 steps of the last plan done")
        ]
        assert transcript(Episode(Task(env="forest"), "")).endswith("reward 0; 0 revisions\n")

    def test_long_evidence_is_cut(self) -> None:
        episode = by_hand()
        episode.turns = [replace(episode.turns[0], evidence="because " * 40)]
        assert f" (because {'because ' * 10}b…) · step 1" in transcript(episode)

    def test_texts_that_did_not_parse(self) -> None:
        texts = ("I would rather not", "1. find mug at stool 1\n2. put mug in drawer 1 after 1", *["keep"] * 9)
        text = transcript(play(Planner(BRIEF), texts, seed=3, kind="put", places=5))
        assert "attempt 1 did not parse:\n      │ I would rather not\n      1. find mug at stool 1\n" in text
        assert "planner: 1 text that did not parse" in text
        hopeless = transcript(play(Planner(BRIEF), ("no", "never"), seed=3, kind="put", places=5))
        assert "attempt 2 did not parse:\n      │ never\n      no steps found" in hopeless
        assert "Plan  none; the episode goes on without a plan" in hopeless

    def test_a_fault_is_told(self) -> None:
        episode = play(seed=3, kind="no such kind", places=5)
        assert "fault after 0 turns" in transcript(episode) and episode.error[:20] in transcript(episode)

    def test_hostile_text_stays_text(self, household: Episode) -> None:
        episode = hostile(household)
        text = transcript(episode)
        assert "\x1b" not in text and "\\x1b[31mred" in text and "[red]paint[/red] [/]" in text
        assert not re.search(r"^Revision 9", text, re.M) and "      │ Revision 9  all good" in text

    def test_clean(self) -> None:
        assert clean("a\tb\u00a0c\nd") == "a b c d"
        assert clean("\ud800\u202e\x07é✓中") == "\\ud800\\u202e\\x07é✓中"

    def test_terminal(self, household: Episode) -> None:
        plain = Console(file=StringIO(), width=300, color_system=None)
        print_transcript(hostile(household), plain)
        shown = plain.file.getvalue()
        assert [line.rstrip() for line in shown.splitlines()] == transcript(hostile(household)).splitlines()
        coloured = Console(file=StringIO(), width=44, force_terminal=True, color_system="standard")
        print_transcript(hostile(household), coloured)
        bare = re.sub(r"\x1b\[[0-9;]*m", "", coloured.file.getvalue())
        assert "\x1b" not in bare and max(map(len, bare.splitlines())) <= 44
        assert "[red]paint[/red]" in " ".join(bare.replace("│", "").split())


def hostile(episode: Episode) -> Episode:
    """The same episode, with hostile text wherever a model or an environment writes."""
    copy = Episode.from_json(episode.to_json())
    copy.observation = HOSTILE
    copy.error = HOSTILE
    plan = Plan(goal=HOSTILE[:60], rationale=HOSTILE[:60], steps=(PlanStep(id=1, description=HOSTILE),))
    copy.plans = [PlanRecord(0, plan), PlanRecord(1, plan.model_copy(update={"revision": 1}))]
    copy.turns = [Turn(i, HOSTILE, HOSTILE, 0.0, False, Verdict.ON_PLAN, 1, evidence=HOSTILE) for i in range(3)]
    return copy


def picture(path: Path) -> tuple[int, int]:
    """Width and height of a PNG that is not blank."""
    image = pytest.importorskip("PIL.Image").open(path).convert("L")
    histogram = image.histogram()
    assert sum(histogram[:200]) > 500, "hardly any ink"
    assert sum(histogram[240:]) > image.width * image.height / 4
    return image.width, image.height


class TestPictures:
    @pytest.fixture(autouse=True)
    def _drawing(self) -> None:
        pytest.importorskip("matplotlib")

    def test_plan(self, household: Episode, crafting: Episode, tmp_path: Path) -> None:
        wide, _ = picture(draw_plan(household, tmp_path / "household.png"))
        narrow, _ = picture(draw_plan(crafting, tmp_path / "crafting.png"))
        assert wide > 1.5 * narrow > 1000

    def test_panels(self) -> None:
        first, second = panels(by_hand())
        assert (first.turns, second.turns) == ((0, 4), (4, 8))  # the kept record belongs to the first
        assert first.states == {1: "done", 2: "done", 3: "failed", 4: "open"}
        assert (first.new, first.dropped) == (set(), {4})
        assert (second.new, second.reworded, second.dropped) == ({5}, {2}, set())

    def test_plans_of_any_size(self, household: Episode, tmp_path: Path) -> None:
        picture(draw_plan(hostile(household), tmp_path / "hostile.png"))
        chain = tuple(PlanStep(id=i, description=f"step {i}", after=(i - 1,) if i > 1 else ()) for i in range(1, 101))
        loose = tuple(PlanStep(id=i, description="x" * 400) for i in range(1, 101))
        many = [PlanRecord(0, Plan(steps=s)) for s in (chain, loose) * 4]
        size = picture(draw_plan(Episode(Task(env="e"), "", plans=many), tmp_path / "many.png"))
        assert max(size) < 6000
        assert draw_plan(Episode(Task(env="e"), ""), tmp_path / "none.png").exists()

    def test_plan_into_memory(self, household: Episode) -> None:
        small, large = (draw_plan(household, BytesIO(), dpi).getvalue() for dpi in (60, 120))
        assert small.startswith(b"\x89PNG") and len(small) < len(large)

    def test_no_two_states_look_alike_in_grey(self) -> None:
        """Fill, hatch or border tell them apart without colour."""
        colors = pytest.importorskip("matplotlib.colors")
        looks = {
            status: (round(sum(colors.to_rgb(style["facecolor"])) * 8), style["linewidth"], style.get("hatch"))
            for status, style in STYLES.items()
        }
        assert len(set(looks.values())) == len(MARKS) == len(set(MARKS.values()))

    def test_curves(self, tmp_path: Path) -> None:
        _, tall = picture(draw_curves(metrics(), tmp_path / "curves.png"))
        bare = [{k: v for k, v in row.items() if k in ("kind", "stage", "iteration", "success")} for row in metrics()]
        _, low = picture(draw_curves([r for r in bare if r["kind"] == "train"], tmp_path / "bare.png"))
        assert tall > low
        assert draw_curves([], tmp_path / "empty.png").exists()
        assert draw_curves([r for r in metrics() if r["kind"] == "eval"], tmp_path / "base.png").exists()

    def test_spans_and_smoothing(self) -> None:
        train = [r for r in metrics() if r["kind"] == "train"]
        assert stage_spans(train) == [("executor", 0, 4), ("planner", 4, 8), ("joint", 8, 12)]
        assert smooth([0.0, 3.0, float("nan"), 6.0], 3) == [1.5, 1.5, 4.5, 6.0]


def metrics() -> list[dict[str, Any]]:
    """Three stages of four iterations, with evaluations of two agents before and after each."""
    rows: list[dict[str, Any]] = []

    def evaluate(stage: str, iteration: int, success: float) -> None:
        for agent, panel, decoding in (
            ("plan", "dev", "greedy"),
            ("plan", "dev", "t0.3"),
            ("plan", "heldout", "t0.3"),
            ("none", "dev", "greedy"),
        ):
            value = success - 0.1 * (agent == "none") - 0.05 * (decoding == "greedy")
            row = {"kind": "eval", "stage": stage, "iteration": iteration, "panel": panel, "agent": agent}
            rows.append(
                row | {"decoding": decoding, "success": value, "low": value - 0.09, "high": value + 0.09, "n": 64}
            )

    evaluate("base", 0, 0.25)
    for number, stage in enumerate(("executor", "planner", "joint")):
        for iteration in range(4 * number, 4 * number + 4):
            rows.append(
                {
                    "kind": "train",
                    "stage": stage,
                    "iteration": iteration,
                    "success": 0.2 + 0.05 * iteration,
                    "reward_planner": None if stage == "executor" else 0.4,
                    "reward_executor": 0.1 * number,
                    "adherence": None if iteration == 5 else 0.5,
                    "turns": 9.5,
                    "entropy": 0.7,
                    "kl": float("nan"),
                    "zero_variance": 0.25,
                    "episodes": 96,
                    "env_steps": 900 * (iteration + 1),
                }
            )
        evaluate(stage, 4 * number + 4, 0.45 + 0.2 * number)
    return rows


class TestTables:
    def test_numbers(self) -> None:
        head, rows = table(metrics())
        assert head == ["stage", "agent", "decoding", "dev (n = 64)", "heldout (n = 64)"]
        assert rows[0] == ["base", "with plan", "t0.3", "25 % [16, 34]", "25 % [16, 34]"]
        assert rows[1] == ["base", "no plan", "greedy", "10 % [1, 19]", "–"]
        assert [row[0] for row in rows[::2]] == ["base", "executor", "planner", "joint"]
        assert rows[-2][3] == "85 % [76, 94]"

    def test_the_newest_evaluation_counts(self) -> None:
        evals = [r | {"decoding": "greedy"} for r in metrics() if r["stage"] == "base" and r["agent"] == "none"]
        older, newer = evals[0] | {"iteration": 1, "success": 0.9}, evals[0] | {"iteration": 2, "success": 0.5, "n": 32}
        assert table([newer, older])[1][0][3] == "50 % [1, 19]"

    def test_markdown_and_terminal(self) -> None:
        lines = markdown_table(metrics()).splitlines()
        assert lines[1] == "| --- | --- | --- | ---: | ---: |" and len(lines) == 10
        assert lines[2] == "| base | with plan | t0.3 | 25 % [16, 34] | 25 % [16, 34] |"
        console = Console(file=StringIO(), width=120)
        evil = [row | {"stage": "[red]a|b[/red]"} for row in metrics() if row["kind"] == "eval"]
        console.print(results_table(evil))
        assert "[red]a|b[/red]" in console.file.getvalue() and "25 % [16, 34]" not in console.file.getvalue()
        assert "a&#124;b" in markdown_table(evil)

    def test_empty_and_without_interval(self) -> None:
        assert results_table([]).row_count == 0 and markdown_table([]).startswith("| stage")
        assert cell({"success": 0.615}) == "62 %" and cell(None) == "–"


class TestPage:
    def write(self, run: Path, *episodes: Episode) -> str:
        (run / "transcripts.jsonl").write_text("".join(f"{e.to_json()}\n" for e in episodes), encoding="utf-8")
        return write_report(run).read_text(encoding="utf-8")

    @pytest.fixture(autouse=True)
    def _templates(self) -> None:
        pytest.importorskip("jinja2")

    def test_everything(self, household: Episode, crafting: Episode, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in metrics()) + '{"kind": "tr')
        draw_curves(metrics(), tmp_path / "curves.png")
        (tmp_path / "config.yaml").write_text("seed: 7\nweights: split # <b>\n")
        (tmp_path / "panels.json").write_text('{"dev": {"hash": "03de99aa", "tasks": 96}}')
        (tmp_path / "times.json").write_text('{"wall_s": 1390, "hardware": "2 cores"}')
        (tmp_path / "environment.json").write_text('{"versions": {"torch": "2.13.0"}}')
        page = self.write(tmp_path, household, crafting)
        for text in ("25 % → 85 %", "25 % [16, 34]", "10,800", "23 min", "2 cores", "03de99aa", "2.13.0", "craft tile"):
            assert text in page, text
        assert page.count("data:image/png;base64,") == 3  # the curves, and each episode's plans
        assert "adherence 100%, coverage 100%" in page and "(the environment&#39;s predicate)" in page
        assert page.count("<details") == 2 and page.count("<details open>") == 1
        assert page.index("<details open>") < page.index("put clean mug in drawer</b>")
        assert "weights: split # &lt;b&gt;" in page and "config: seed" in page
        assert not re.search(r"""(?:src|href)="(?!data:)|https?://|url\(|@import|<script""", page)

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
        assert '<td class="number">34.5 % [30, 40]</td>' in page and '<th class="num">count</th>' in page

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"title": ', "Invalid JSON"),
            ('{"sections": []}', "title: Field required"),
            ('{"title": "a", "sections": [{"title": "b", "head": ["c"], "rows": [["d", "e"]]}]}', "row 1 has 2 cells"),
            ('{"title": "a", "sections": [{"title": "b", "picture": "../b.png"}]}', "should be the name of a file"),
            ('{"title": "a", "sections": [{"title": "b", "picture": "b.png"}]}', "'b.png', which is not there"),
        ],
    )
    def test_broken_diagnostics_are_one_clear_line(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "diagnostics.json").write_text(text)
        with pytest.raises(UserError, match=r"diagnostics\.json") as caught:
            write_report(tmp_path)
        assert message in str(caught.value) and "\n" not in str(caught.value)

    def test_hostile_text_is_escaped(self, household: Episode, tmp_path: Path) -> None:
        run = tmp_path / "<i>run<"
        run.mkdir()
        page = self.write(run, hostile(household))
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


class TestInspect:
    """``hiplan inspect``, as a person would call it."""

    @pytest.fixture
    def run(self, household: Episode, tmp_path: Path) -> Path:
        found = Episode.from_json(household.to_json())
        found.observation += " A line\u2028that goes on."  # ends a line for str.splitlines, not for JSON lines
        lines = (episode.to_json() + "\n" for episode in (found, by_hand(), hostile(household)))
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
        assert text.endswith("This is episode 0. Another one: --index NUMBER\n")
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
        assert "has no episode 7; it holds 3" in self.call(run, "--index", 7)
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
