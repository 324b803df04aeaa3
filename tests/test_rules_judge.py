"""The rules judge by hand: the three scores, what passes, and that oracles' plans do."""

from __future__ import annotations

import pytest
from tracking import CHAIN, CUP, TREE, plan_aware

from hiplan.coordination import PlanScore, judge_plan
from hiplan.formats import parse_numbered
from hiplan.task import Task


@pytest.mark.parametrize(
    ("text", "correctness", "followability", "standardisation"),
    [
        ("1. make a\n2. make b after 1\n3. make c after 2", 5, 5, 5),
        ("1. get 1 x\n2. make a after 1\n3. get y\n4. make b after 2, 3\n5. make c", 5, 5, 5),  # getting is fine
        ("1. make c", 1 + 4 * (0 + 1) / 6, 5, 5),  # shallow: none in order, 1 of 3 named
        ("1. make b\n2. make c", 1 + 4 * (0 + 2) / 6, 5, 5),
        ("1. make a\n2. make c", 1 + 4 * (1 + 2) / 6, 5, 5),
        ("1. make a\n2. make c\n3. make b\n4. make c", 5, 5, 5),  # the second time it can be made
        ("1. make c\n2. make b\n3. make a", 1 + 4 * (1 + 3) / 6, 5, 5),  # wrong order: only a is reached
        ("1. make a\n2. make c\n3. make b", 1 + 4 * (2 + 3) / 6, 5, 5),
        ("1. make a after 2\n2. make b\n3. make c", 5, 1 + 4 * 2 / 3, 5),  # 1 waits for what comes later
        ("1. make a\n2. have fun\n3. make b\n4. make c", 5, 1 + 4 * 3 / 4, 5),
        ("1. win", 1, 1, 5),
        ("\n".join(f"{i}. make {'abc'[i % 3 - 1]}" for i in range(1, 17)), 5, 5, 1 + 4 * 8 / 16),  # 8 steps are plenty
    ],
)
def test_scores_by_hand(text: str, correctness: float, followability: float, standardisation: float) -> None:
    score = judge_plan(parse_numbered(text), plan_aware(CHAIN))
    found = (score.correctness, score.followability, score.standardisation)
    assert found == pytest.approx((correctness, followability, standardisation))
    assert score.mean == pytest.approx((correctness + followability + standardisation) / 3)
    assert score.passes == (correctness >= 4 and followability == standardisation == 5)


def test_a_missing_plan_scores_worst() -> None:
    assert judge_plan(None, plan_aware(CHAIN)) == PlanScore(1.0, 1.0, 1.0)


def test_what_passes() -> None:
    assert PlanScore(4.0, 5.0, 5.0).passes  # mean 4.67
    assert not PlanScore(3.9, 5.0, 5.0).passes
    assert not PlanScore(5.0, 4.9, 5.0).passes and not PlanScore(5.0, 5.0, 4.9).passes


def test_household_plans_are_judged() -> None:
    env = plan_aware(CUP)
    good = "1. find cup at rack 1\n2. clean cup at sink 1 after 1\n3. put cup in box 1 after 2"
    assert judge_plan(parse_numbered(good), env) == PlanScore(5, 5, 5)
    guess = good.replace("rack 1", "shelf 1")  # it cannot know
    assert judge_plan(parse_numbered(guess), env) == PlanScore(5, 5, 5)
    skips = judge_plan(parse_numbered("1. find cup at rack 1\n3. put cup in box 1 after 1"), env)
    assert skips.correctness == pytest.approx(1 + 4 * (1 + 2) / 6) and not skips.passes
    wrong = judge_plan(parse_numbered(good.replace("box 1", "rack 1")), env)  # put into the wrong kind of place
    assert (wrong.correctness, wrong.followability) == pytest.approx((1 + 4 * (2 + 2) / 6, 1 + 4 * 2 / 3))


@pytest.mark.parametrize(
    "task", [CHAIN, TREE, CUP, *(Task(env="crafting", params={"seed": s, "depth": 4}) for s in range(20))]
)
def test_oracle_plans_pass(task: Task) -> None:
    env = plan_aware(task)
    assert judge_plan(env.oracle_plan(), env) == PlanScore(5, 5, 5)  # type: ignore[attr-defined]


def test_any_order_that_works_passes() -> None:
    assert judge_plan(parse_numbered("1. make b\n2. make a\n3. make c after 1, 2"), plan_aware(TREE)).passes
