"""Household by hand: near misses, what cannot be done, wrong tasks, and what plan steps mean."""

from __future__ import annotations

from typing import Any

import pytest
from worlds import household, made

from hiplan.envs import Household, make_env
from hiplan.errors import TaskError
from hiplan.plan import StepStatus
from hiplan.task import StepResult, Task


class Hand:
    """Plays household by hand, knowing where everything is."""

    def __init__(self, **params: Any) -> None:
        self.env: Household = made(household(**params))
        self.target = self.env.names[0]
        self.right = next(
            p for p in self.env.places if p.split()[0] == self.env.destination or not self.env.destination
        )
        self.wrong = next(p for p in self.env.places if p.split()[0] != self.env.destination and p != self.right)
        self.last = StepResult("")

    def do(self, action: str) -> Hand:
        self.last = self.env.step(action)
        return self

    def go(self, place: str) -> Hand:
        if self.env.at != place:
            self.do(f"go to {place}")
        return self.do(f"open {place}") if place not in self.env.open else self

    def take(self, thing: str) -> Hand:
        place = self.env.where[thing]
        return self.go(place).do(f"take {thing} from {place}")

    def put(self, thing: str, place: str) -> Hand:
        return self.go(place).do(f"move {thing} to {place}")

    def other(self) -> str:
        return next(thing for thing in self.env.where if thing not in self.env.names)


def earns(hand: Hand) -> bool:
    assert hand.last.reward in (0.0, 1.0) and hand.last.terminated == bool(hand.last.reward)
    return hand.last.terminated


@pytest.mark.parametrize("seed", range(5))
def test_near_misses_of_put_earn_nothing(seed: int) -> None:
    hand = Hand(seed=seed, kind="put")
    assert not earns(hand.take(hand.target))
    assert not earns(hand.go(hand.right)), "carrying it there is not putting it there"
    assert not earns(hand.put(hand.target, hand.wrong))
    other = Hand(seed=seed, kind="put")
    assert not earns(other.take(other.other()).put(other.env.hand or "", other.right))
    assert earns(hand.take(hand.target).put(hand.target, hand.right))
    assert hand.do("look").last.refused


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("kind", "tool", "wrong"), [("clean", "sink", "heat"), ("heat", "oven", "cool"), ("cool", "fridge", "clean")]
)
def test_near_misses_of_treatments_earn_nothing(kind: str, tool: str, wrong: str, seed: int) -> None:
    hand = Hand(seed=seed, kind=kind)
    assert not earns(hand.take(hand.target).put(hand.target, hand.right)), "put there untreated"
    assert not earns(hand.take(hand.target).go(f"{tool} 1").do(f"{wrong} {hand.target} with {tool} 1"))
    assert hand.last.refused
    assert not earns(hand.put(hand.target, hand.right)), "treated in another way"
    hand.go(f"{tool} 1").do(f"{kind} {hand.target} with {tool} 1")
    assert hand.last.refused and not earns(hand), "treated without being carried"
    thing = hand.other()
    hand.take(thing).go(f"{tool} 1").do(f"{kind} {thing} with {tool} 1").put(thing, hand.right)
    assert not earns(hand), "another object treated"
    hand.take(hand.target).go(f"{tool} 1").do(f"{kind} {hand.target} with {tool} 1")
    assert not hand.last.refused and not earns(hand.put(hand.target, hand.wrong)), "treated and put elsewhere"
    assert earns(hand.take(hand.target).put(hand.target, hand.right))


@pytest.mark.parametrize("seed", range(5))
def test_near_misses_of_two_earn_nothing(seed: int) -> None:
    hand = Hand(seed=seed, kind="two")
    first, second = hand.env.names
    assert not earns(hand.take(first).put(first, hand.right))
    assert not earns(hand.take(first).put(first, hand.right)), "the same one twice"
    assert not earns(hand.take(second).put(second, hand.wrong))
    hand.take(first).put(first, hand.wrong)
    assert not earns(hand.take(second).put(second, hand.right)), "one came, the other went"
    assert earns(hand.take(first).put(first, hand.right))


@pytest.mark.parametrize("seed", range(5))
def test_near_misses_of_look_earn_nothing(seed: int) -> None:
    hand = Hand(seed=seed, kind="look")
    assert not earns(hand.go("lamp 1").do("use lamp 1")), "with empty hands"
    thing = hand.other()
    assert not earns(hand.take(thing).go("lamp 1").do("use lamp 1")), "another object"
    hand.do(f"move {thing} to lamp 1").take(hand.target)
    assert not earns(hand.do("use lamp 1")), "elsewhere"
    hand.go("lamp 1").do(f"move {hand.target} to lamp 1").do("use lamp 1")
    assert not earns(hand), "lying beside it"
    assert earns(hand.take(hand.target).do("use lamp 1"))


@pytest.mark.parametrize("verb", ["move {} to {}", "put {} in/on {}", "put {} in {}", "put {} on {}"])
def test_alfworlds_older_verb_is_accepted(verb: str) -> None:
    hand = Hand(seed=1, kind="put")
    hand.take(hand.target).go(hand.right).do(verb.format(hand.target, hand.right))
    assert hand.last == StepResult(f"You move {hand.target} to {hand.right}.", reward=1.0, terminated=True)
    for step in (f"put {hand.env.target} in {hand.right}", f"put {hand.env.target} in {hand.right}."):
        assert hand.env.serves(step, verb.format(hand.target, hand.right))


def test_the_world_cannot_be_cheated() -> None:
    hand = Hand(seed=1, kind="clean")  # the cup lies on rack 1
    for action in (
        "take cup 1 from rack 1",  # not there yet
        "go to rack 2",
        "go to rack 1\ngo to sink 1 now",
        "go  to rack 1",
        "GO TO RACK 1",
        "clean cup 1 with sink 1",
        "move cup 1 to box 1",
        "use sink 1",
    ):
        before = hand.env.state_key()
        assert hand.do(action).last == StepResult("Nothing happens.", refused=True), action
        assert hand.env.state_key() == before
    hand.go("rack 1").do("take cup 1 from rack 1").go("box 1")
    assert hand.do("take apple 1 from box 1").last.refused, "one object at a time"
    hand.do("close box 1")
    assert hand.do("move cup 1 to box 1").last.refused, "a closed box takes nothing"
    assert hand.do("inventory").last == StepResult("You carry cup 1.")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (household(), "household task parameter seed: Field required"),
        (household(seed=1, kind="paint"), "household task parameter kind: Input should be 'put', 'clean'"),
        (household(seed=1, places=1), "household task parameter places: Input should be greater than or equal to 2"),
        (household(seed="x"), "household task parameter seed: Input should be a valid integer"),
        (household(seed=1, recipes=[]), "household task parameter recipes: Extra inputs are not permitted"),
        (Task(env="kitchen"), "unknown environment 'kitchen'; expected one of crafting, household"),
    ],
)
def test_what_is_wrong_with_a_household_task(task: Task, message: str) -> None:
    with pytest.raises(TaskError) as caught:
        make_env(task).reset(task)
    assert message in str(caught.value)


def test_household_understands_plan_steps() -> None:
    hand = Hand(seed=1, kind="clean")  # a clean cup into a box; the cup lies on rack 1
    env = hand.env
    steps = ("find cup at shelf 1", "find cup at rack 1", "clean cup at sink 1", "put cup in box 1")
    assert [env.subgoal_of(s) for s in steps] == ["find", "find", "clean", "put"]
    odd = (
        "find bread at rack 1",
        "find cup at rack 9",
        "heat cup at sink 1",
        "put cup in rack 1",
        "use lamp 1",
        "rest",
    )
    assert [env.subgoal_of(s) for s in odd] == [None] * 6
    hand.go("shelf 1")
    assert [env.step_status(s) for s in steps] == [StepStatus.FAILED, *[StepStatus.OPEN] * 3]
    hand.take("cup 1")
    assert env.step_status("find cup at rack 1") is StepStatus.DONE
    hand.go("sink 1").do("clean cup 1 with sink 1").go("box 1")
    assert [env.step_status(s) for s in steps[2:]] == [StepStatus.DONE, StepStatus.OPEN]
    assert env.serves("clean cup at sink 1", "go to sink 1") and not env.serves("put cup in box 1", "go to box 2")


def test_the_oracle_sees_no_more_than_the_agent() -> None:
    """Its plans and actions stay the same when what nobody has seen is moved elsewhere."""
    env = made(household(seed=1, kind="clean"))
    plan, action = env.oracle_plan(), env.oracle_action(None)
    env.where["cup 1"] = "box 2"
    assert (env.oracle_plan(), env.oracle_action(None)) == (plan, action)
    assert plan.steps[0].description == "find cup at shelf 1"
