"""Results and gains of a run as tables: by environment, like with like, and how its episodes were chosen."""

from io import StringIO
from typing import Any

from report_cases import HOSTILE, metrics
from rich.console import Console

from hiplan.envs.tasks import Panel, named_panel
from hiplan.report import markdown_table, results_table
from hiplan.report.gains import gains
from hiplan.report.samples import selection_note
from hiplan.report.tables import cell, panel_note, results, table
from hiplan.task import Task
from hiplan.trace import Episode

DEV = named_panel("mixed-dev-0-4")  # household, household, crafting, crafting; two of each pair are held-out kinds
HELD = named_panel("mixed-heldout-0-4")  # crafting, household, household, crafting
PANELS = {"dev": DEV, "heldout": HELD}


def solved(stage: str, panel: str, decoding: str, bits: str, agent: str = "plan", iteration: int = 0) -> dict[str, Any]:
    success = bits.count("1") / len(bits)
    row = {"kind": "eval", "stage": stage, "panel": panel, "agent": agent, "decoding": decoding, "iteration": iteration}
    return row | {"success": success, "low": 0.0, "high": 1.0, "n": len(bits), "solved": bits}


RUN = [
    solved("base", "dev", "greedy", "1000"),
    solved("base", "dev", "t0.7", "1001"),
    solved("base", "heldout", "t0.7", "0000"),
    solved("final", "dev", "greedy", "1110", iteration=9),
    solved("final", "dev", "t0.7", "1000", iteration=9),
    solved("final", "heldout", "greedy", "0110", iteration=9),
]


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

    def test_rows_by_environment(self) -> None:
        head, rows = table(RUN, PANELS)
        assert head == ["stage", "agent", "decoding", "tasks", "dev (n = 4)", "heldout (n = 4)"]
        # Wilson for 1 of 2: centre 0.5, half width 0.405; for 2 of 2: from 0.342
        assert [row[3:] for row in rows[3:]] == [
            ["all", "75 % [0, 100]", "50 % [0, 100]"],
            ["crafting", "50 % [9, 91]", "0 % [0, 66]"],
            ["household", "100 % [34, 100]", "100 % [34, 100]"],
        ]
        console = Console(file=StringIO(), width=80)
        console.print(results_table(RUN, PANELS))
        lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
        assert any(line.startswith(" final, with plan, greedy") for line in lines)
        assert any(line.startswith("   household") and "100 % [34, 100]" in line for line in lines)
        assert "success [95 % interval]; untrained" in console.file.getvalue(), "the caption is text, no markup"
        assert "| final | with plan | greedy | crafting | 50 % [9, 91] |" in markdown_table(RUN, PANELS)

    def test_one_environment_or_another_panel_needs_no_rows(self) -> None:
        assert "tasks" not in table(RUN, {"dev": named_panel("crafting-dev-0-4")})[0]
        assert "tasks" not in table(RUN, {"dev": named_panel("mixed-dev-0-8")})[0], "not the tasks that were run"
        assert results(RUN)[0].parts == {}

    def test_what_a_panel_holds(self) -> None:
        assert panel_note("dev", DEV) == "dev: 4 tasks (2 crafting, 2 household), 2 of held-out kinds"
        assert panel_note("heldout", HELD) == "heldout: 4 tasks (2 crafting, 2 household)"
        assert panel_note("a\x1b", Panel(name="b", tasks=(Task(env="chess"),))) == "a\\x1b: 1 tasks"


class TestGains:
    def test_like_is_compared_with_like(self) -> None:
        """The base is best at t0.7 and the end greedily: the gain counts greedily at both ends where it can."""
        like, best = gains(RUN, PANELS)
        assert (like.decoding_label, like.same_decoding, set(like.changes["all"])) == ("greedy", True, {"dev"})
        assert (best.decoding_label, best.same_decoding) == ("t0.7 → greedy", False)
        # dev greedily: differences 0, 1, 1, 0; mean 0.5, deviation 0.577, t(0.975, 3) = 3.182: half width 0.919
        assert str(like.changes["all"]["dev"]) == "+50 [-42, +142]"
        assert (like.changes["all"]["dev"].start, like.changes["all"]["dev"].end) == (0.25, 0.75)
        assert str(like.changes["household"]["dev"]) == "+50 [-585, +685]"  # 0 and 1: t(0.975, 1) = 12.706
        assert str(best.changes["household"]["heldout"]) == "+100 [+100, +100]"
        assert str(best.changes["crafting"]["heldout"]) == "+0 [+0, +0]"

    def test_each_agent_is_compared_with_itself(self) -> None:
        none = [solved(s, "dev", "greedy", bits, "none") for s, bits in (("base", "1100"), ("final", "1111"))]
        found = {gain.agent: gain for gain in gains([*RUN, *none], PANELS)}
        assert list(found) == ["plan", "none"] and found["none"].changes["all"]["dev"].mean == 0.5

    def test_without_tasks_there_is_no_interval(self) -> None:
        """Metrics of older runs do not say which tasks were solved."""
        first = gains(metrics())[0]
        assert first.decodings == ("greedy", "greedy") and str(first.changes["all"]["dev"]) == "+60"

    def test_one_stage_has_no_gain(self) -> None:
        assert gains(RUN[:3], PANELS) == gains([], {}) == []


class TestHowEpisodesWereChosen:
    def test_the_first_tasks_of_the_panels(self) -> None:
        episodes = [Episode(task, "") for task in (*DEV.tasks[:2], *HELD.tasks[:3])]
        sentence = (
            "Selected by position, not by outcome: the first 2 of dev and the first 3 of heldout, "
            "in the order of the panel."
        )
        assert selection_note(episodes, PANELS) == sentence

    def test_others_may_have_been_picked(self) -> None:
        picked = [Episode(task, "") for task in (DEV.tasks[0], DEV.tasks[3])]
        assert "is not recorded" in selection_note(picked, PANELS)
        assert "is not recorded" in selection_note([Episode(Task(env="forest"), "")], {})
        assert selection_note([], PANELS) == ""

    def test_names_of_panels_are_text(self) -> None:
        assert "\x1b" not in selection_note([Episode(DEV.tasks[0], "")], {HOSTILE: DEV})
