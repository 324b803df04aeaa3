"""Pictures of plans, training curves and studies, drawn and looked at roughly: size and ink."""

import json
from io import BytesIO
from pathlib import Path

import pytest
from report_cases import by_hand, crafting, hostile, household, metrics

from hiplan.coordination.graph import MARKS
from hiplan.plan import Plan, PlanStep
from hiplan.report import draw_curves, draw_plan
from hiplan.report.comparisons import draw_arms, draw_deviations, draw_reliance
from hiplan.report.curves import Axis, smooth, stage_spans
from hiplan.report.graph import STYLES, panels
from hiplan.task import Task
from hiplan.trace import Episode, PlanRecord


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

    def test_plan(self, tmp_path: Path) -> None:
        wide, _ = picture(draw_plan(household(), tmp_path / "household.png"))
        narrow, _ = picture(draw_plan(crafting(), tmp_path / "crafting.png"))
        assert wide > 1.5 * narrow > 1000

    def test_panels(self) -> None:
        first, second = panels(by_hand())
        assert (first.turns, second.turns) == ((0, 4), (4, 8))  # the kept record belongs to the first
        assert first.states == {1: "done", 2: "done", 3: "failed", 4: "open"}
        assert (first.new, first.dropped) == (set(), {4})
        assert (second.new, second.reworded, second.dropped) == ({5}, {2}, set())

    def test_plans_of_any_size(self, tmp_path: Path) -> None:
        picture(draw_plan(hostile(household()), tmp_path / "hostile.png"))
        chain = tuple(PlanStep(id=i, description=f"step {i}", after=(i - 1,) if i > 1 else ()) for i in range(1, 101))
        loose = tuple(PlanStep(id=i, description="x" * 400) for i in range(1, 101))
        many = [PlanRecord(0, Plan(steps=s)) for s in (chain, loose) * 4]
        size = picture(draw_plan(Episode(Task(env="e"), "", plans=many), tmp_path / "many.png"))
        assert max(size) < 6000
        assert draw_plan(Episode(Task(env="e"), ""), tmp_path / "none.png").exists()

    def test_plan_into_memory(self) -> None:
        small, large = (draw_plan(household(), BytesIO(), dpi).getvalue() for dpi in (60, 120))
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

    def test_narrow_pictures_fit_a_small_screen(self, tmp_path: Path) -> None:
        """At 150 dots an inch, 5.4 inches are shown on a screen of 500 pixels at more than half their size."""
        narrow, tall = picture(draw_curves(metrics(), tmp_path / "curves.png", narrow=True))
        wide, _ = picture(draw_curves(metrics(), tmp_path / "wide.png"))
        assert narrow <= 5.4 * 150 < wide and tall > 1.5 * narrow
        for episode in (household(), crafting(), hostile(household())):
            assert picture(draw_plan(episode, tmp_path / "plan.png", narrow=True))[0] <= 5.4 * 150
        assert draw_plan(Episode(Task(env="e"), ""), tmp_path / "none.png", narrow=True).exists()

    def test_studies(self, tmp_path: Path) -> None:
        arms = {"one": {"crafting": (10.0, [20.0, 30.0]), "household": (None, [40.0, 50.0])}}
        assert picture(draw_arms({"train": arms, "held out": arms}, tmp_path / "arms.png"))[0] <= 1000
        shares = {name: {"own": (0.1, [0.2, 0.3]), "none": (0.0, [0.5, 0.4])} for name in ("crafting", "household")}
        assert picture(draw_reliance(shares, tmp_path / "reliance.png"))[0] <= 1000
        assert picture(draw_deviations({"a": {1: {"on plan": 3}}, "b": {0: {}}}, tmp_path / "where.png"))[0] <= 1000

    def test_the_axis_counts_environment_steps(self) -> None:
        train = [r for r in metrics() if r["kind"] == "train"]
        evals = [r for r in metrics() if r["kind"] == "eval"]
        axis = Axis.of(train, evals)
        assert axis.label == "environment steps"
        assert stage_spans(train, axis) == [
            ("executor", 0, 3600), ("planner", 3600, 7200), ("joint", 7200, 10800),
        ]  # fmt: skip
        assert [axis.place(row) for row in (train[0], evals[-1])] == [900, 10800]

    def test_without_steps_the_axis_counts_iterations(self) -> None:
        """An iteration's row tells of what was done by its end."""
        rows = [{k: v for k, v in r.items() if k != "env_steps"} for r in metrics()]
        train = [r for r in rows if r["kind"] == "train"]
        axis = Axis.of(train, rows)
        assert axis.label == "iterations" and axis.place(train[0]) == 1
        assert stage_spans(train, axis) == [("executor", 0, 4), ("planner", 4, 8), ("joint", 8, 12)]
        broken = [*metrics(), json.loads('{"kind": "train", "stage": "joint", "iteration": 12, "env_steps": NaN}')]
        assert Axis.of([r for r in broken if r["kind"] == "train"], []).label == "iterations"

    def test_names_that_no_font_can_draw(self, tmp_path: Path) -> None:
        odd = "\ud800\x1b$\\frac{"
        rows = [{**row, "stage": odd, "decoding": odd} for row in metrics()]
        picture(draw_curves(rows, tmp_path / "curves.png"))

    def test_rows_that_say_no_more_than_they_must(self, tmp_path: Path) -> None:
        rows = [{"kind": "train", "success": 0.5}, {"kind": "eval", "stage": "a", "panel": "dev", "success": 0.5}]
        picture(draw_curves(rows, tmp_path / "curves.png"))

    def test_a_plan_that_was_lost_ends_the_one_before(self, tmp_path: Path) -> None:
        one, two = (Plan(steps=(PlanStep(id=1, description=text),)) for text in ("go", "stay"))
        records = [PlanRecord(0, one), PlanRecord(1, None), PlanRecord(1, None, kept=True), PlanRecord(2, two)]
        episode = Episode(Task(env="e"), "", plans=records)
        assert [(p.number, p.plan, p.turns) for p in panels(episode)] == [(0, one, (0, 1)), (1, two, (2, 0))]
        picture(draw_plan(episode, tmp_path / "plan.png"))

    def test_smoothing(self) -> None:
        assert smooth([0.0, 3.0, float("nan"), 6.0], 3) == [1.5, 1.5, 4.5, 6.0]
