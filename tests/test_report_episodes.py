"""What a report tells of an episode: how its steps stood, its story, and how often its plan changed."""

import re
from dataclasses import replace
from io import StringIO

from report_cases import FIRST, SECOND, by_hand, crafting, hostile, household, play, turn
from rich.console import Console

from hiplan.coordination import scores, step_states
from hiplan.plan import ReplanKind, ReplanReason
from hiplan.planners import NoPlanner, Planner
from hiplan.prompts import BRIEF
from hiplan.report import print_transcript, transcript
from hiplan.report.overview import overview
from hiplan.report.transcript import clean, score_rows
from hiplan.task import Task
from hiplan.trace import Episode, PlanRecord, StopReason, Turn, Verdict


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

    def test_real_episodes(self) -> None:
        assert [set(s.values()) for s in step_states(household())] == [{"failed", "open"}] * 3 + [{"done"}]
        assert step_states(crafting()) == [dict.fromkeys(range(1, 6), "done")]
        assert step_states(play(NoPlanner(), seed=3, kind="clean", places=5)) == [{}]


class TestTranscript:
    def test_tells_the_story(self) -> None:
        text = transcript(household())
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
            "      order violations 0  premature actions\n"
            "      drift 0  longest run of actions off plan\n"
            "      stability 3.0  edits per revision; 0 is the most stable\n"
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
        names = [name for name, _, _ in score_rows(scores(episode))]
        assert names == ["adherence", "coverage", "order violations", "drift", "stability"]
        episode.plans.pop()
        assert [name for name, _, _ in score_rows(scores(episode))] == names[:4]
        assert score_rows(scores(Episode(Task(env="forest"), "", plans=[PlanRecord(0, FIRST)]))) == [
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
        assert "Plan  none; the episode continues without a plan" in hopeless

    def test_a_fault_is_told(self) -> None:
        episode = play(seed=3, kind="no such kind", places=5)
        assert "fault after 0 turns" in transcript(episode) and episode.error[:20] in transcript(episode)

    def test_hostile_text_stays_text(self) -> None:
        episode = hostile(household())
        text = transcript(episode)
        assert "\x1b" not in text and "\\x1b[31mred" in text and "[red]paint[/red] [/]" in text
        assert not re.search(r"^Revision 9", text, re.M) and "      │ Revision 9  all good" in text

    def test_clean(self) -> None:
        assert clean("a\tb\u00a0c\nd") == "a b c d"
        assert clean("\ud800\u202e\x07é✓中") == "\\ud800\\u202e\\x07é✓中"

    def test_terminal(self) -> None:
        plain = Console(file=StringIO(), width=300, color_system=None)
        print_transcript(hostile(household()), plain)
        shown = plain.file.getvalue()
        assert [line.rstrip() for line in shown.splitlines()] == transcript(hostile(household())).splitlines()
        coloured = Console(file=StringIO(), width=44, force_terminal=True, color_system="standard")
        print_transcript(hostile(household()), coloured)
        bare = re.sub(r"\x1b\[[0-9;]*m", "", coloured.file.getvalue())
        assert "\x1b" not in bare and max(map(len, bare.splitlines())) <= 44
        assert "[red]paint[/red]" in " ".join(bare.replace("│", "").split())


class TestRevisions:
    """One count everywhere: changed plans."""

    def test_plans_that_changed_are_counted(self) -> None:
        assert household().revisions() == 3 and crafting().revisions() == 0
        assert by_hand().revisions() == 1, "an answer that kept the plan is no revision"

    def test_an_episode_that_failed_before_planning_has_none(self) -> None:
        assert Episode(Task(env="forest"), "").revisions() == 0
        assert play(seed=3, kind="no such kind", places=5).revisions() == 0

    def test_a_first_plan_that_comes_late_is_a_change(self) -> None:
        look = ReplanReason(kind=ReplanKind.STUCK)
        episode = Episode(Task(env="forest"), "", plans=[PlanRecord(0, None), PlanRecord(0, FIRST, look)])
        assert episode.revisions() == scores(episode).revisions == 1
        assert scores(episode).edits == len(FIRST.steps)
        assert "Revision 1  after turn 0" in transcript(episode)

    def test_every_view_tells_the_same_number(self) -> None:
        episodes = [household(), crafting(), by_hand(), Episode(Task(env="forest"), "")]
        console = Console(file=StringIO(), width=100)
        console.print(overview(dict(enumerate(episodes))))
        rows = [line.split() for line in console.file.getvalue().splitlines() if re.match(r" *\d ", line)]
        for episode, row in zip(episodes, rows, strict=True):
            assert int(row[-3]) == episode.revisions() == scores(episode).revisions
            assert re.search(rf"; {episode.revisions()} revisions?$", transcript(episode), re.M)
