"""Crafting by hand: near misses, kinds of ingredients, wrong tasks, and what plan steps mean."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from worlds import DOOR, STICK, STICKS, crafting, made, play

from hiplan.envs import make_env
from hiplan.envs.recipes import ITEMS
from hiplan.errors import TaskError
from hiplan.plan import StepStatus
from hiplan.task import StepResult


def test_crafting_by_hand() -> None:
    env = made(crafting(**DOOR))
    assert env.reset(crafting(**DOOR)) == "\n".join(["Recipes:", *DOOR["recipes"], "Goal: craft door."])
    rows = [
        ("inventory", "Inventory: You are not carrying any items.", False),
        ("get log", "Got 1 log", False),
        ("get 2 iron", "Got 2 iron", False),
        ("  get 1 tin\n", "Got 1 tin", False),
        ("get 1 plank", "Could not find plank", True),
        ("get 0 log", "Could not find log", True),
        ("get 1 diamond", "Could not find diamond", True),
        ("craft 2 plank using 1 log", "Crafted 2 plank", False),
        ("inventory", "Inventory: [iron] (2) [plank] (2) [tin] (1) ", False),
        ("craft 1 hinge using 1 tin, 2 iron", "Crafted 1 hinge", False),  # any order
        ("craft 1 door using 4 plank, 1 hinge", "Could not find enough items to craft door", True),
        ("craft 1 boat using 4 plank", "Could not find a valid recipe for boat", True),
        ("dance", "Could not execute dance", True),
        ("get 1 log", "Got 1 log", False),
        ("craft 2 plank using 1 log", "Crafted 2 plank", False),
    ]
    for action, observation, refused in rows:
        assert env.step(action) == StepResult(observation, refused=refused)
    assert env.step("craft door using 4 plank, hinge") == StepResult("Crafted 1 door", reward=1.0, terminated=True)
    assert env.step("inventory").refused, "nothing happens after the end"


@pytest.mark.parametrize(
    "last",
    [
        "craft 1 door using 4 plank",
        "craft 1 door using 3 plank, 1 hinge",
        "craft 1 door using 4 plank, 2 hinge",
        "craft 1 door using 5 plank, 1 hinge",
        "craft 2 door using 4 plank, 1 hinge",
        "craft 1 door using 4 plank, 1 hinge, 1 log",
        "craft 1 door using 2 plank, 2 plank, 1 hinge",
        "craft 1 door using 4 planks, 1 hinge",
        "craft 1 Door using 4 plank, 1 hinge",
        "craft 1 doors using 4 plank, 1 hinge",
        "Craft 1 door using 4 plank, 1 hinge",
        "craft  1 door using 4 plank, 1 hinge",
        "craft 1 door using 4 plank and 1 hinge",
        "craft 1 door using 4 plank, 1 hinge.",
        "craft ١ door using 4 plank, 1 hinge",
        "I will craft 1 door using 4 plank, 1 hinge",
        "craft 1 door",
        "get 1 door",
        "craft 1 hinge using 2 iron, 1 tin",
    ],
)
def test_near_misses_of_crafting_earn_nothing(last: str) -> None:
    env = made(crafting(**DOOR))
    fetch = ["get 2 log", DOOR["recipes"][0], DOOR["recipes"][0], "get 4 iron", "get 2 tin", DOOR["recipes"][1]]
    assert not any(result.refused for result in play(env, *fetch))
    result = env.step(last)
    assert result.reward == 0.0 and not result.terminated
    assert env.step(DOOR["recipes"][2]).reward == 1.0


def test_a_generic_ingredient_is_met_by_any_of_its_kind() -> None:
    for wood in ("oak", "birch"):
        env = made(crafting(**STICK))
        results = play(env, f"get 1 {wood} log", f"craft 4 {wood} planks using 1 {wood} log")
        assert not any(r.refused for r in results)
        assert env.step("craft 4 stick using 2 planks").refused, "the name of a kind is no item"
        assert env.step("craft 4 stick using 1 oak planks, 1 birch planks").refused, "recipes name one item for it"
        assert env.step(f"craft 4 stick using 2 {wood} planks").reward == 1.0


def test_a_kind_cannot_be_fetched_past_its_recipes() -> None:
    env = made(crafting(**STICK))
    results = play(env, "get 2 planks", "get 2 oak planks", "craft 4 stick using 2 planks")
    assert all(result.refused and result.reward == 0 for result in results)


def test_ingredients_match_one_for_one_in_any_order() -> None:
    params = {
        "recipes": ["craft 1 fire using 1 wood, 1 fuel, 1 oak"],
        "goal": "fire",
        "kinds": {"wood": ["oak", "birch"], "fuel": ["birch", "coal", "oak"]},
    }
    for needs in (*permutations(["oak", "birch", "coal"]), ("oak", "birch", "coal")):
        env = made(crafting(**params))
        play(env, *(f"get 1 {item}" for item in needs))
        assert env.step(f"craft 1 fire using {', '.join(f'1 {item}' for item in needs)}").reward == 1.0
    env = made(crafting(**params))
    play(env, "get 1 birch", "get 2 coal")
    assert env.step("craft 1 fire using 1 birch, 1 coal").refused


def test_yields_and_counts_are_planned_for() -> None:
    env = made(crafting(**DOOR))
    assert env.subgoals() == {"plank": (), "hinge": (), "door": ("plank", "hinge")}
    actions = []
    while not actions or not actions[-1][1].terminated:
        actions.append((action := env.oracle_action(None), env.step(action)))
    assert [action for action, _ in actions] == [
        "get 2 log", "craft 2 plank using 1 log", "craft 2 plank using 1 log",
        "get 2 iron", "get 1 tin", "craft 1 hinge using 2 iron, 1 tin", "craft 1 door using 4 plank, 1 hinge",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "crafting task parameter seed: Field required"),
        ({"seed": 1, "depth": 0}, "crafting task parameter depth: Input should be greater than or equal to 1"),
        ({"seed": 1, "deep": 3}, "crafting task parameter deep: Extra inputs are not permitted"),
        (
            {"seed": 8, "depth": 12, "crafts": 40, "width": 4, "distractors": 40},
            f"needs more than the {len(ITEMS)} item names there are; lower crafts, width or distractors",
        ),
        ({"recipes": STICKS}, "needs 'recipes' (a list of lines) and 'goal' (an item)"),
        ({"recipes": STICKS, "goal": "boat"}, "no recipe makes the goal 'boat'"),
        ({"recipes": [], "goal": "boat"}, "no recipe makes the goal 'boat'"),
        ({"recipes": ["make a boat"], "goal": "boat"}, "recipe line 'make a boat' is not of the form 'craft 4 planks"),
        ({"recipes": ["craft 0 a using 1 b"], "goal": "a"}, "is not of the form"),
        ({"recipes": ["craft 1 a using 0 b"], "goal": "a"}, "is not of the form"),
        ({"recipes": ["craft 1 a using 1 b, 2 b"], "goal": "a"}, "names an ingredient twice; write it once"),
        ({"recipes": ["craft 1 a using 1 b", "craft a using c"], "goal": "a"}, "two recipes make 'a'"),
        ({"recipes": ["craft 1 a using 1 a"], "goal": "a"}, "need each other in a circle: a"),
        ({"recipes": ["craft 1 a using 1 b", "craft 1 b using 1 a"], "goal": "a"}, "in a circle: "),
        ({**STICK, "kinds": {"planks": ["stick"]}}, "in a circle: stick"),
        ({**STICK, "kinds": {"planks": []}}, "kind 'planks' is []; expected a list of the items that meet it"),
        ({**STICK, "kinds": {"planks": "oak planks"}}, "kind 'planks' is 'oak planks'; expected a list"),
        ({**STICK, "kind": {}}, "crafting task parameter 'kind' cannot be combined with recipes"),
    ],
)
def test_what_is_wrong_with_a_crafting_task(params: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError) as caught:
        make_env(task := crafting(**params)).reset(task)
    assert message in str(caught.value)


def test_crafting_understands_plan_steps() -> None:
    env = made(crafting(**DOOR))
    sensible, odd = ("make plank", "Craft 2 plank.", "get 3 iron"), ("get plank", "make log", "rest")
    assert [env.subgoal_of(step) for step in sensible] == ["plank", "plank", "get iron"]
    assert [env.subgoal_of(step) for step in odd] == [None] * 3
    assert env.serves("make plank", "get 2 log") and env.serves("make plank", DOOR["recipes"][0])
    assert not env.serves("make plank", "get 2 iron") and not env.serves("make plank", "inventory")
    assert env.serves("get 2 iron", "get 1 iron") and not env.serves("get 2 iron", "get 1 tin")
    assert env.step_status("get 1 plank") is StepStatus.OPEN
    play(env, "get 1 plank", "get 2 log", DOOR["recipes"][0])
    assert env.step_status("get 1 ghost") is StepStatus.OPEN
    assert [env.step_status(s) for s in ("make plank", "make 2 plank", "make 3 plank", "get 2 log", "get 3 log")] == [
        StepStatus.DONE, StepStatus.DONE, StepStatus.OPEN, StepStatus.DONE, StepStatus.OPEN,
    ]  # fmt: skip
    env.step("get 1 ghost")
    assert env.step_status("get 1 ghost") is StepStatus.FAILED
