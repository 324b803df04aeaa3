"""Rewards by hand, and the guard: following a bad plan must not pay."""

from dataclasses import replace

import pytest

from hiplan.coordination import PlanScore
from hiplan.formats import parse_numbered
from hiplan.task import Task
from hiplan.trace import Candidate, Conversation, Episode, PlanRecord, StopReason, Turn, Verdict
from hiplan.training.rewards import Guard, RewardWeights, format_share, role_reward

GOOD, BAD = PlanScore(5, 5, 5), PlanScore(2, 5, 5)
FOLLOWING = RewardWeights(adherence=0.4, coverage=0.2)


def episode(success: bool, planned: bool = True) -> Episode:
    """Four actions, three on plan, one of them refused; one of two steps done."""
    plan = parse_numbered("1. a\n2. b after 1") if planned else None
    verdicts = [Verdict.ON_PLAN, Verdict.ON_PLAN, Verdict.OFF_PLAN, Verdict.ON_PLAN]
    turns = [
        Turn(i, "x", "y", float(success and i == 3), i == 2, v if planned else None, done=(1,) if i == 1 else ())
        for i, v in enumerate(verdicts)
    ]
    stop = StopReason.TERMINATED if success else StopReason.TURN_LIMIT
    return Episode(Task(env="x"), "", plans=[PlanRecord(0, plan)], turns=turns, stop=stop)


def test_an_executors_reward_by_hand() -> None:
    # outcome 1, format 3/4 of 0.1, adherence 3/4 of 0.4, coverage 1/2 of 0.2
    assert role_reward(episode(True), "executor", FOLLOWING) == pytest.approx(1 + 0.075 + 0.3 + 0.1)
    assert role_reward(episode(True, planned=False), "executor", FOLLOWING) == pytest.approx(1.075)


def test_a_planners_reward_by_hand() -> None:
    played = episode(True)
    conversation = Conversation("planner")
    conversation.answer("1.", "plan", 0)
    conversation.refuse("no steps found")
    conversation.answer("1. a\n2. b after 1", "plan", 0)
    played.conversations["planner"] = conversation
    weights = RewardWeights(adherence=9, quality=0.4)
    # outcome 1, format 1/2 of 0.1, quality (4 - 1) / 4 of 0.4; adherence is the executor's
    assert role_reward(played, "planner", weights) == pytest.approx(1.05)
    played.plans = [replace(played.plans[0], score=BAD)]
    assert role_reward(played, "planner", weights) == pytest.approx(1 + 0.05 + 0.3)


@pytest.mark.parametrize(
    ("guard", "success", "score", "counts"),
    [
        ("none", False, BAD, True),
        ("success", False, GOOD, False),
        ("success", True, BAD, True),
        ("plan", True, BAD, False),
        ("plan", False, GOOD, True),
        ("plan", True, None, False),
        ("either", False, BAD, False),
        ("either", True, BAD, True),
        ("either", False, GOOD, True),
        ("either", False, None, False),
    ],
)
def test_following_counts_where_the_guard_says_so(
    guard: Guard, success: bool, score: PlanScore | None, counts: bool
) -> None:
    weights = FOLLOWING.model_copy(update={"guard": guard})
    bare = role_reward(episode(success), "executor", RewardWeights())
    played = episode(success)
    played.plans = [replace(played.plans[0], score=score)]
    assert role_reward(played, "executor", weights) - bare == pytest.approx(0.4 if counts else 0)


def test_who_needs_the_judge() -> None:
    assert not RewardWeights().judged("executor") and not RewardWeights().judged("planner")
    assert RewardWeights(quality=0.1).judged("planner") and not RewardWeights(quality=0.1).judged("executor")
    assert [RewardWeights(coverage=0.1, guard=g).judged("executor") for g in ("none", "success", "plan", "either")] == [
        False, False, True, True,
    ]  # fmt: skip


def test_texts_of_plans_not_taken_count_too() -> None:
    """Three of four candidates could not be read: a quarter of the planner's texts is worth something."""
    played = episode(False)
    talks = [Conversation("planner") for _ in range(4)]
    for number, talk in enumerate(talks):
        talk.answer("x", "plan", 0)
        if number:
            talk.refuse("no steps found")
    played.conversations["planner"] = talks[0]
    played.candidates = [Candidate(None, conversations=[talk]) for talk in talks[1:]]
    assert format_share(played, "planner") == pytest.approx(1 / 4)
