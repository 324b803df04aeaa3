"""Credit assignment against the numbers worked by hand in "Role groups", and its identities."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiplan.trace import Role
from hiplan.training.credit import (
    CREDITS,
    Decision,
    group_center,
    grpo,
    informative,
    leave_one_out,
    per_episode,
    successes,
)
from hiplan.training.credit.episodic import EPSILON

ESTIMATORS = {"grpo": grpo, "loo": leave_one_out}
PLANNER, EXECUTOR, TURNS = [1.5, 0.5, 0.0, 2.0], [1.0, 0.0, 0.0, 1.0], [2, 1, 1, 4]
TASK = ["task"] * 4
# Rewards that are multiples of 1/8 make every sum exact, so that "equal" means equal.
rewards = st.integers(-40, 40).map(lambda n: n / 8)
grouped = st.lists(st.tuples(rewards, st.integers(0, 3)), min_size=1, max_size=24)


def by_turns(values: list[float]) -> tuple[list[float], list[int]]:
    """One row per turn instead of one per episode, and the episode of each row."""
    rows = [(value, i) for i, (value, n) in enumerate(zip(values, TURNS, strict=True)) for _ in range(n)]
    return [value for value, _ in rows], [i for _, i in rows]


def test_role_groups_have_the_numbers_worked_by_hand() -> None:
    np.testing.assert_allclose(group_center(PLANNER, TASK), [0.5, -0.5, -1, 1])
    scaled = group_center(PLANNER, TASK, scale="std0")
    np.testing.assert_allclose(scaled, [0.632456, -0.632456, -1.264911, 1.264911], atol=5e-7)
    np.testing.assert_allclose(group_center(EXECUTOR, TASK), [0.5, -0.5, -0.5, 0.5])
    np.testing.assert_allclose(group_center(EXECUTOR, TASK, scale="std0"), [1, -1, -1, 1])
    np.testing.assert_allclose(leave_one_out(EXECUTOR, TASK), [2 / 3, -2 / 3, -2 / 3, 2 / 3])


def test_the_unit_decides_whether_long_episodes_weigh_more() -> None:
    values, episode = by_turns(EXECUTOR)
    task = ["task"] * len(values)
    by_turn = group_center(values, task)  # mean 6/8 over eight turn rows
    np.testing.assert_allclose(by_turn, [0.25 if value else -0.75 for value in values])
    by_episode = group_center(values, task, units=episode)  # mean 2/4 over four episodes
    np.testing.assert_allclose(by_episode, [0.5 if value else -0.5 for value in values])
    scaled = group_center(values, task, units=episode, scale="std0")
    np.testing.assert_allclose(scaled, [1.0 if value else -1.0 for value in values])


def test_pooling_both_roles_would_give_other_advantages() -> None:
    pooled = group_center(PLANNER + EXECUTOR, TASK * 2)
    np.testing.assert_allclose(pooled[:4], [0.75, -0.25, -0.75, 1.25])
    roles = ["planner"] * 4 + ["executor"] * 4
    apart = group_center(PLANNER + EXECUTOR, list(zip(TASK * 2, roles, strict=True)))
    np.testing.assert_allclose(apart, [0.5, -0.5, -1, 1, 0.5, -0.5, -0.5, 0.5])


def test_grpo_divides_by_the_sample_deviation_plus_epsilon() -> None:
    deviation = np.std(PLANNER, ddof=1)
    np.testing.assert_allclose(grpo(PLANNER, TASK), np.array([0.5, -0.5, -1, 1]) / (deviation + EPSILON))
    assert EPSILON == 1e-4


def decision(episode: int, reward: float, role: Role = "executor", turn: int = 0, group: int = 0) -> Decision:
    return Decision(
        episode,
        group,
        "task",
        role,
        turn,
        "action",
        0,
        "",
        reward,
        tokens=3,
        surprisal=1.0,
        done=False,
        truncated=False,
    )


def test_an_episodes_advantage_is_that_of_all_its_decisions() -> None:
    """Rewards per decision are summed; roles and groups have statistics of their own."""
    rewards = {("planner", 0): [1.5], ("planner", 1): [0.5], ("executor", 0): [0.25, 0.75], ("executor", 1): [0.0]}
    made = [
        decision(i, r, role, turn)
        for (role, i), of in rewards.items()
        for turn, r in enumerate(of)  # type: ignore[arg-type]
    ]
    found = per_episode(lambda values, groups: group_center(values, groups))(made)
    np.testing.assert_allclose(found, [0.5, -0.5, 0.5, 0.5, -0.5])
    apart = per_episode(leave_one_out)([*made, decision(7, 9.0, group=1)])
    np.testing.assert_allclose(apart, [1, -1, 1, 1, -1, 0])


def test_successes_are_imitated_and_nothing_else() -> None:
    rewards = [[1.0], [0.95], [0.0, 1.0], [0.0]]
    made = [decision(i, r, turn=t) for i, of in enumerate(rewards) for t, r in enumerate(of)]
    assert successes(made).tolist() == [1, 0, 1, 1, 0]


@given(grouped, st.sampled_from(sorted(CREDITS)), st.randoms(use_true_random=False))
def test_permuting_decisions_permutes_advantages(rows: list[tuple[float, int]], name: str, rng: random.Random) -> None:
    made = [decision(i // 2, r, turn=i % 2, group=rows[i // 2 * 2][1]) for i, (r, _) in enumerate(rows)]
    order = list(range(len(made)))
    rng.shuffle(order)
    straight, shuffled = CREDITS[name](made), CREDITS[name]([made[i] for i in order])
    np.testing.assert_allclose(shuffled, straight[order], atol=1e-9)


@pytest.mark.parametrize(("singleton", "expected"), [("zero", 0.0), ("raw", 3.0)])
def test_a_group_of_one_gets_what_was_asked_for(singleton: str, expected: float) -> None:
    assert group_center([3.0, 1.0, 2.0], ["alone", "b", "b"], singleton=singleton).tolist() == [expected, -0.5, 0.5]


def test_one_episode_of_many_turns_is_a_group_of_one() -> None:
    assert group_center([3.0, 3.0], ["a", "a"], units=["episode", "episode"], baseline="loo").tolist() == [0, 0]


@given(grouped)
def test_leave_one_out_is_centering_times_n_over_n_minus_one(rows: list[tuple[float, int]]) -> None:
    values, groups = [r for r, _ in rows], [g for _, g in rows]
    centered, loo = group_center(values, groups), leave_one_out(values, groups)
    for i, (value, group) in enumerate(rows):
        others = [v for j, (v, g) in enumerate(rows) if g == group and j != i]
        n = len(others) + 1
        assert loo[i] == pytest.approx(value - sum(others) / len(others) if others else 0.0)
        assert loo[i] == pytest.approx(centered[i] * n / max(1, n - 1))


@given(grouped, st.sampled_from(["grpo", "loo"]))
def test_advantages_of_a_group_sum_to_nothing_and_agreeing_groups_get_none(
    rows: list[tuple[float, int]], name: str
) -> None:
    values, groups = [r for r, _ in rows], [g for _, g in rows]
    advantages = ESTIMATORS[name](values, groups)
    useful = informative(values, groups)
    for group in set(groups):
        mine = [a for a, g in zip(advantages, groups, strict=True) if g == group]
        assert sum(mine) == pytest.approx(0, abs=1e-9)
        assert any(mine) == (group in useful)
    constant = ESTIMATORS[name]([0.1 * g for g in groups], groups)  # 0.1 is not exact in binary
    assert np.abs(constant).max() < 1e-9


@given(grouped, st.sampled_from(sorted(ESTIMATORS)), st.randoms(use_true_random=False))
def test_permuting_the_episodes_permutes_the_advantages(
    rows: list[tuple[float, int]], name: str, rng: random.Random
) -> None:
    order = list(range(len(rows)))
    rng.shuffle(order)
    straight = ESTIMATORS[name]([r for r, _ in rows], [g for _, g in rows])
    shuffled = ESTIMATORS[name]([rows[i][0] for i in order], [rows[i][1] for i in order])
    np.testing.assert_allclose(shuffled, straight[order], atol=1e-12)


@given(grouped, st.integers(-8, 8))
def test_shifting_all_returns_of_a_task_changes_nothing(rows: list[tuple[float, int]], shift: int) -> None:
    values, groups = [r for r, _ in rows], [g for _, g in rows]
    shifted = [value + shift * group for value, group in rows]
    np.testing.assert_allclose(grpo(shifted, groups), grpo(values, groups), atol=1e-9)


def test_informative_groups_are_those_whose_episodes_differ() -> None:
    values = [1.0, 1.0, 0.0, 1.0, 0.5, 0.3, 0.1 + 0.2]
    assert informative(values, ["same", "same", "mixed", "mixed", "alone", "rounding", "rounding"]) == {"mixed"}
    assert informative([], []) == set()
