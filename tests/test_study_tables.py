"""Tables of studies: hand-computed numbers by environment, and published tables that are those of the kept cells."""

from pathlib import Path

import pytest
from study_cells import ENVIRONMENTS, TASKS, measured, summary, under

from experiments import comparison, redraw
from experiments.studies import SEARCH_SEED, STUDIES, Arm, Study
from hiplan.errors import ConfigError
from hiplan.evaluation.diagnostics import CONDITIONS
from hiplan.report.diagnostics import Section, read_diagnostics
from hiplan.runs.tables import cross_section, gap, interval, parts_of, policy_sections, reliance_sections, spread

PANELS = ("train", "dev", "heldout")
TWO = Study("two", {"a": Arm("first"), "b": Arm("second")}, stages=("joint",))
ROOT = Path(redraw.__file__).parents[1]
STUDY_NAMES = (
    sorted(path.name for path in redraw.STUDIES_FOLDER.iterdir() if path.is_dir())
    if redraw.STUDIES_FOLDER.is_dir()
    else []
)


def column(table: Section, *names: str) -> dict[tuple[str, ...], dict[str, str]]:
    """The table's rows as mappings, by the cells under these heads."""
    rows = [dict(zip(table.head, row, strict=True)) for row in table.rows]
    return {tuple(row[name] for name in names): row for row in rows}


def test_the_panels_of_these_tests_mix_environments() -> None:
    for kind in ("train", "heldout"):
        assert ENVIRONMENTS[kind] == ["crafting", "household", "household", "crafting"]


# -- runs ---------------------------------------------------------------------------------------


def two() -> list[comparison.ArmResults]:
    cells = [
        summary("a", 0, dict.fromkeys(PANELS, "1100")),
        summary("a", 1, dict.fromkeys(PANELS, "1110")),
        summary("b", 0, dict.fromkeys(PANELS, "0111")),
        summary("b", 1, dict.fromkeys(PANELS, "1111")),
        summary("b", SEARCH_SEED, dict.fromkeys(PANELS, "0000")),  # the search is no result
    ]
    return comparison.arm_results(TWO, cells)


def test_every_seed_by_environment_and_differences_paired_over_tasks() -> None:
    table = comparison.every_seed(TWO, two(), [0, 1], "joint", dev=False)
    of = {key: list(row.values())[3:] for key, row in column(table, "tasks", "agent").items()}
    assert {tasks.partition(":")[0] for tasks, _ in of} == {"train", "held-out"}
    # Wilson, 1 of 4: centre (1/4 + 3.8415/8) / (1 + 3.8415/4) = 0.373, half width 0.327
    assert of["train: all (4)", "untrained"] == ["25 %", "25 %", "25 [5, 70]", "", ""]
    # t(0.975, 1) = 12.706; seeds 50 and 75: mean 62.5, half width 12.706 * 17.678 / sqrt(2) = 158.8
    assert of["train: all (4)", "first"] == ["50 %", "75 %", "62 [-96, 221]", "+38 [-121, +196]", ""]
    assert of["held-out: all (4)", "second"] == [
        "75 %",
        "100 %",
        "88 [-71, 246]",
        "+62 [-96, +221]",
        "+25 [+25, +25]",
    ]
    # crafting is tasks 1 and 4, household 2 and 3; seeds 50 and 100 have half width 12.706 * 35.355 / sqrt(2) = 317.7
    assert of["train: crafting (2)", "second"] == [
        "50 %", "100 %", "75 [-243, 393]", "+25 [-293, +343]", "+25 [-293, +343]",
    ]  # fmt: skip
    assert of["train: household (2)", "first"] == ["50 %", "100 %", "75 [-243, 393]", "+75 [-243, +393]", ""]


def test_success_in_brief_has_a_column_for_each_environment() -> None:
    table = comparison.success(TWO, two(), "joint")
    assert table.head == (
        "agent", "train: all (4)", "train: crafting (2)", "train: household (2)",
        "held-out: all (4)", "held-out: crafting (2)", "held-out: household (2)",
    )  # fmt: skip
    rows = column(table, "agent")
    assert rows["untrained",]["train: crafting (2)"] == "50 [9, 91]"
    assert rows["second",]["held-out: household (2)"] == "100 [100, 100]"


def test_a_gain_is_over_the_arms_own_start_also_without_plans() -> None:
    """An agent that never plans is compared with itself before training, and with the first arm task by task."""
    starts = {"a": ("1000", "plan"), "b": ("0000", "plan"), "c": ("1110", "none")}
    solved = dict.fromkeys(PANELS, "1111")
    cells = [summary(arm, s, solved, base=base, agent=agent) for arm, (base, agent) in starts.items() for s in (0, 1)]
    study = Study("three", TWO.arms | {"c": Arm("never a plan", agent="none")}, stages=("joint",))
    table = comparison.every_seed(study, comparison.arm_results(study, cells), [0, 1], "joint", dev=False)
    rows = column(table, "tasks", "agent")
    gains = {name: row["gain over its own start"] for (tasks, name), row in rows.items() if tasks == "train: all (4)"}
    assert gains == {
        "untrained, first": "", "untrained, second": "", "untrained, never a plan": "",
        "first": "+75 [+75, +75]", "second": "+100 [+100, +100]", "never a plan": "+25 [+25, +25]",
    }  # fmt: skip
    assert rows["train: all (4)", "never a plan"]["against first"] == "+0 [+0, +0]"
    del cells[-1]["evals"][-3:], cells[-2]["evals"][-3:]  # a study that did not measure it before training
    table = comparison.every_seed(study, comparison.arm_results(study, cells), [0, 1], "joint", dev=False)
    assert column(table, "tasks", "agent")["train: all (4)", "never a plan"]["gain over its own start"] == ""


def test_decodings_that_were_tried_are_shown_with_the_seeds_that_chose_them() -> None:
    cells = [summary("a", seed, dict.fromkeys(PANELS, "1100")) for seed in (0, 1)]
    for cell, bits in zip(cells, ("1000", "1110"), strict=True):
        row = next(e for e in cell["evals"] if (e["stage"], e["panel"]) == ("joint", "dev"))
        cell["evals"].append(row | {"decoding": "t0.7", "solved": bits, "success": bits.count("1") / 4})
    study = Study("one", {"a": TWO.arms["a"]}, stages=("joint",))
    (table,) = comparison.decodings(study, comparison.arm_results(study, cells), [0, 1], "joint")
    rows = column(table, "decoding")
    assert [rows[name,]["chosen by"] for name in ("greedy", "t0.7")] == ["seed 0", "seed 1"]
    assert (rows["greedy",]["mean [95 %]"], rows["t0.7",]["seed 1"]) == ("50 [50, 50]", "75 %")
    assert comparison.decodings(TWO, two(), [0, 1], "joint") == [], "one decoding leaves nothing to choose"


def test_a_report_is_table_picture_and_page(tmp_path: Path) -> None:
    cells = [summary(arm, seed, dict.fromkeys(PANELS, "1100")) for arm in TWO.arms for seed in (0, 1)]
    text = comparison.report(TWO, cells, {"a": 1.0, "b": 2.0}, [0, 1], tmp_path, "python <script>")
    assert text.count("| first |") == 8 and "x 2" in text and "train 7a9068cd81cc (4 tasks)" in text
    page = (tmp_path / "report.html").read_text()
    assert "&lt;script&gt;" in page and "<script" not in page and "data:image/png;base64," in page
    assert (tmp_path / "picture.png").stat().st_size > 5000


def test_cells_of_another_panel_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'mixed-train-0-4' has the hash 7a9068cd81cc, but .* made with 'abc'"):
        parts_of("mixed-train-0-4", "abc")


# -- numbers ------------------------------------------------------------------------------------


def test_numbers_as_they_are_shown() -> None:
    assert interval(-0.2, -12.4, 11.0, signed=True) == "+0 [-12, +11]", "never -0"
    assert interval(3.0, float("nan"), float("nan")) == "3"
    assert spread([2, 3, float("nan"), 4]) == "3 [1, 5]" and spread([float("nan")]) == "–"
    assert gap(["110", "110"], ["100", "010"], (0, 1)) == "+50 [+50, +50]"
    assert gap(["1100"], ["1001"], (0, 1, 2, 3)) == "+0 [-130, +130]", "over tasks where there is one seed"


# -- measurements -------------------------------------------------------------------------------


def test_what_a_plan_is_worth_keeps_the_plan_and_its_revisions_apart(tmp_path: Path) -> None:
    """Household solves nothing without revisions, crafting needs none: only the rows by environment tell."""
    solved = dict.fromkeys(CONDITIONS, "0000") | {"own": "1111", "own, fixed": "1001", "none": "1000"}
    more = {"judged": [5.0, 4.0, None, 3.0], "overlap": 0.5, "deviations": [[1, "on plan", 3]]}
    before = [measured("train", results=under(dict.fromkeys(CONDITIONS, "1000")), **more)]
    after = [measured("train", results=under(solved), **more) for _ in range(2)]
    short, success, worth_short, worth, followed = reliance_sections("train", [0, 1], before, after, tmp_path)
    rows = column(worth, "tasks", "")
    trained = {
        (part, what): rows[f"{part} (2)", what]["trained"]
        for part in ("crafting", "household")
        for what in (
            "its own plan with revisions instead of none",
            "its own first plan, never revised, instead of none",
            "revising its own plan instead of never",
        )
    }
    assert list(trained.values()) == [
        "+50 [+50, +50]", "+50 [+50, +50]", "+0 [+0, +0]", "+100 [+100, +100]", "+0 [+0, +0]", "+100 [+100, +100]",
    ]  # fmt: skip
    own = column(success, "tasks", "plan")["household (2)", CONDITIONS["own"]]
    assert (own["untrained"], own["seed 0"], own["gain"]) == ("0 %", "100 %", "+100 [+100, +100]")
    assert column(followed, "plan")[CONDITIONS["own"],]["actions on plan"] == "50 % → 50 %"
    assert short.head[:4] == ("plan", "all (4): untrained", "all (4): trained", "crafting (2): untrained")
    assert column(short, "plan")[CONDITIONS["own"],]["household (2): trained"] == "100 [100, 100]"
    revising = column(worth_short, "")["revising its own plan instead of never",]
    assert (revising["crafting (2): trained"], revising["household (2): trained"]) == (
        "+0 [+0, +0]",
        "+100 [+100, +100]",
    )
    assert (tmp_path / "reliance-train.png").stat().st_size > 5000


def test_roles_of_different_runs_by_environment() -> None:
    matrix = [[under({"x": bits})["x"] for bits in row] for row in (("1111", "1001"), ("0110", "1111"))]
    table = cross_section("train", [0, 1], measured("train", matrix=matrix))
    rows = column(table, "tasks", "")
    assert rows["crafting (2)", "planner of seed 0"]["executor of seed 1"] == "100 %"
    assert rows["household (2)", "planner of seed 0"]["executor of seed 1"] == "0 %"
    assert "+50 [+50, +50] (all)" in table.note


def test_policies_are_compared_by_environment_and_cost_apart() -> None:
    ways = {"never": "1001", "on failure (default)": "1111"}
    by_way = {way: [measured("train", result=under({"x": bits})["x"])] * 2 for way, bits in ways.items()}
    short, table, costs = policy_sections("train", [0, 1], by_way)
    rows = column(table, "tasks", "policy")
    assert rows["household (2)", "never"]["against the default"] == "-100 [-100, -100]"
    assert rows["crafting (2)", "never"]["against the default"] == "+0 [+0, +0]"
    never = column(short, "policy")["never",]
    assert (never["household (2): mean"], never["crafting (2): against the default"]) == ("0 [0, 0]", "+0 [+0, +0]")
    assert column(costs, "policy")["never",]["model calls"] == "2.0"


# -- what is published --------------------------------------------------------------------------


@pytest.mark.parametrize("name", STUDY_NAMES)
def test_published_tables_are_those_of_the_kept_cells(name: str, tmp_path: Path) -> None:
    redraw.study(redraw.STUDIES_FOLDER / name, tmp_path)
    assert read_diagnostics(tmp_path) == read_diagnostics(redraw.STUDIES_FOLDER / name), "python experiments/redraw.py"
    assert (tmp_path / "table.md").read_text() == (redraw.STUDIES_FOLDER / name / "table.md").read_text()


@pytest.mark.parametrize("document", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name)
def test_documents_show_the_tables_of_the_studies(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert redraw.fill(text, redraw.STUDIES_FOLDER) == text, "python experiments/redraw.py"
    assert text.count("<!-- table: ") == text.count("<!-- end of table -->")


def test_a_table_is_filled_in_between_its_marks() -> None:
    marked = "a\n<!-- table: weights / Cost -->\nold\n<!-- end of table -->\nb\n"
    filled = redraw.fill(marked, redraw.STUDIES_FOLDER)
    assert "old" not in filled and "| split, rank 8 each | 190,464 | x 2 |" in filled
    assert filled.startswith("a\n") and filled.endswith("<!-- end of table -->\nb\n")
    with pytest.raises(ConfigError, match="the study 'weights' has no table 'Price'; expected one of Success"):
        redraw.fill(marked.replace("Cost", "Price"), redraw.STUDIES_FOLDER)


def test_a_folder_without_a_study_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no study at"):
        redraw.study(tmp_path, tmp_path)


def test_every_study_of_runs_can_be_redrawn() -> None:
    assert set(STUDIES) <= set(STUDY_NAMES) and TASKS == 4
