"""What an iteration plays: groups that share task and plan, refills, limits, and environments that fail."""

import pytest
from doubles import Letters, letters
from trainers import EXECUTOR, PLANNER, TWO, build, changed, replace_stage, watch

from hiplan.planners import NoPlanner
from hiplan.task import StepResult, Task
from hiplan.trace import Role
from hiplan.training.config import Stage


def test_a_group_shares_task_and_plan_and_every_episode_has_a_seed_of_its_own() -> None:
    run = build(replace_stage(EXECUTOR, iterations=3), tasks=[letters(2, k=k) for k in range(9)], groups=5)
    jobs = watch(run)
    run.train()
    groups = [jobs[i : i + 4] for i in range(0, len(jobs), 4)]
    assert len(groups) == 15
    for group in groups:
        assert len({job.task.id for job in group}) == 1 == len({id(job.planner) for job in group})
    assert len({group[0].task.id for group in groups}) > 4
    assert len({job.seed for job in jobs}) == len(jobs)


@pytest.mark.parametrize(("trains", "share", "expected"), [
    (("executor",), 0.0, 0.0), (("executor",), 1.0, 1.0), (("executor",), 0.3, 0.3), (("planner",), 0.3, 0.0),
])  # fmt: skip
def test_a_share_of_groups_runs_without_a_plan_while_the_executor_learns(
    trains: tuple[Role, ...], share: float, expected: float
) -> None:
    stage = Stage(name="s", trains=trains, plans="oracle", iterations=2, no_plan=share)
    run = build(stage, groups=60, group_size=2, action_tokens=1, turns=1)
    jobs = watch(run)
    run.train()
    bare = [isinstance(job.planner, NoPlanner) for job in jobs]
    assert sum(bare) / len(bare) == pytest.approx(expected, abs=0.12 if 0 < expected < 1 else 0)
    assert bare[::2] == bare[1::2]  # whole groups


def test_groups_that_agree_are_refilled_and_their_steps_are_counted() -> None:
    class Easy(Letters):
        def step(self, action: str) -> StepResult:
            return super().step("a")

    def make_env(task: Task) -> Letters:
        return (Easy if "easy" in task.params else Letters)(task)

    easy = Task(env="letters", params={"turns": 1, "easy": True})
    stage = replace_stage(EXECUTOR, plans="none", iterations=1)
    settings = {"tasks": [easy, letters(1)], "make_env": make_env, "groups": 8, "turns": 1, "action_tokens": 2}
    first = build(stage, **settings)
    played = watch(first)
    first.train()
    once = len(played)
    run = build(stage, resample=2, **settings)
    jobs = watch(run)
    run.train()
    row = run.metrics.rows[0]
    assert row["episodes"] == row["env_steps"] == len(jobs) > once == 8 * 4
    assert row["episodes"] <= 3 * once


def test_a_stage_ends_when_the_steps_are_spent() -> None:
    run = build(replace_stage(EXECUTOR, iterations=50, env_steps=60), replace_stage(PLANNER, iterations=1))
    run.train()
    taken = [row["env_steps"] for row in run.metrics.rows if row["stage"] == "executor"]
    assert taken[-1] >= 60 > taken[-2]
    assert run.metrics.rows[-1]["stage"] == "planner"


def test_a_failing_environment_is_recorded_and_training_goes_on() -> None:
    tasks = [TWO, letters(2, broken=True), Task(env="letters", params={"turns": "none"})]
    run = build(replace_stage(EXECUTOR, iterations=3), tasks=tasks, groups=9)
    before = run.model.weights.state()
    run.train()
    rows = run.metrics.rows
    assert len(rows) == 3 and all(0 < row["faults"] < row["episodes"] for row in rows)
    assert changed(before, run.model.weights.state()) == {"executor"}
    assert "loss_executor" in rows[-1]


def test_training_goes_on_when_every_episode_fails() -> None:
    run = build(EXECUTOR, tasks=[Task(env="letters", params={"turns": "none"})])
    before = run.model.weights.state()
    run.train()
    assert [row["faults"] for row in run.metrics.rows] == [12, 12]
    assert not changed(before, run.model.weights.state())


def test_faulty_episodes_are_no_examples() -> None:
    """An episode that broke off with part of its reward is left out of rewards and statistics."""
    run = build(replace_stage(EXECUTOR, iterations=1), tasks=[letters(2, broken=True)])
    run.train()
    (row,) = run.metrics.rows
    assert row["faults"] == row["episodes"] and "reward_executor" not in row
