"""The embedded environments: conformance, repeatability, state keys, and texts that published tables depend on.

``golden/environments.json`` pins task generation and every text of both environments. A change of its hashes makes
models trained before, and every published table, wrong: give the environment a new name instead.
"""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
from collections.abc import Hashable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from worlds import (
    DOOR,
    STICK,
    STICKS,
    crafting,
    crafting_tasks,
    fingerprint,
    household,
    household_tasks,
    made,
    play,
    transcript,
    words_at_random,
)

import hiplan
from hiplan.env import Environment, Oracle, PlanAware, check_environment
from hiplan.envs import ENVIRONMENTS, Crafting, make_env
from hiplan.task import StepResult, Task

GOLDEN = Path(__file__).parent / "golden/environments.json"


# -- every task -------------------------------------------------------------------------------


@pytest.mark.parametrize("tasks", [crafting_tasks, household_tasks])
def test_conformance(tasks: Any) -> None:
    rng = random.Random(0)
    for task in tasks():
        check_environment(make_env, task, words_at_random(task, rng), max_steps=400)


@pytest.mark.parametrize("params", [STICK, DOOR, {**STICK, "kinds": {"planks": ["birch planks", "plank"]}}])
def test_users_recipes_conform(params: dict[str, Any]) -> None:
    check_environment(make_env, crafting(**params), ["get 1 oak log", STICKS[0], "inventory", "get 4 planks"])


def test_environments_offer_all_optional_parts() -> None:
    for task in (crafting(seed=1), household(seed=1)):
        env = make_env(task)
        assert isinstance(env, Environment) and isinstance(env, Oracle) and isinstance(env, PlanAware)


def test_the_check_finds_broken_promises() -> None:
    """A check that everything passes proves nothing."""
    moods = count()

    class Moody(Crafting):
        def step(self, action: str) -> StepResult:
            return StepResult(f"{super().step(action).observation} {next(moods)}")

    class Generous(Crafting):
        def step(self, action: str) -> StepResult:
            return StepResult("fine", reward=1.0)

    class Leaky(Crafting):
        def step(self, action: str) -> StepResult:
            self.inventory["leak"] += 1
            return StepResult("no", refused=True)

    class Lost(Crafting):
        def oracle_action(self, step: str | None) -> str:
            return "inventory"

    broken = [
        (Moody, "two different transcripts"),
        (Generous, "not refused"),
        (Leaky, "changed the state"),
        (Lost, "0.0"),
    ]
    for make, promise in broken:
        with pytest.raises(AssertionError, match=promise):
            check_environment(make, crafting(seed=1), ["inventory"], max_steps=5)


def test_a_generated_task_is_as_its_knobs_say() -> None:
    for task in crafting_tasks():
        env, p = made(task), {"depth": 2, "crafts": 5, "width": 2, "distractors": 2, "max_count": 2, "max_yield": 1}
        p |= task.params
        needed = env.subgoals()

        def depth(item: str, env: Crafting = env) -> int:
            return 1 + max(depth(n) for n, _ in env.recipes[item].needs) if item in env.recipes else 0

        assert depth(env.goal) == p["depth"]
        assert len(needed) <= max(p["crafts"], p["depth"])
        assert len(env.recipes) == len(needed) + p["distractors"]
        assert all(1 <= len(r.needs) <= p["width"] and 1 <= r.makes <= p["max_yield"] for r in env.recipes.values())
        assert all(1 <= count <= p["max_count"] for r in env.recipes.values() for _, count in r.needs)
    for task in household_tasks():
        env, p = made(task), {"kind": "put", "places": 4, "clutter": 2, "rooms": 1, **task.params}
        assert len(env.places) == p["places"] and env.kind == p["kind"]
        assert len(env.where) == len(env.names) + p["clutter"]
        assert len(env.reset(task).splitlines()) <= p["rooms"] + 1
        assert not any(env.where[name].split()[0] == env.destination for name in env.names), "solved at the start"


# -- repeatability ----------------------------------------------------------------------------


def test_generation_and_texts_are_those_that_were_published() -> None:
    examples = {"crafting": crafting(seed=7, depth=3), "household": household(seed=7, kind="clean", rooms=2)}
    found = {"sha256": fingerprint(), "examples": {name: transcript(task) for name, task in examples.items()}}
    if os.environ.get("HIPLAN_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert found["examples"] == golden["examples"]  # readable
    assert found["sha256"] == golden["sha256"]


@pytest.mark.parametrize("hashseed", ["0", "4242"])
def test_every_process_sees_the_same(hashseed: str) -> None:
    code = "import json, worlds; print(json.dumps(worlds.fingerprint()))"
    folders = [str(Path(__file__).parent), str(Path(hiplan.__file__).parent.parent)]
    env = {**os.environ, "PYTHONHASHSEED": hashseed, "PYTHONPATH": os.pathsep.join(folders)}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == json.loads(GOLDEN.read_text(encoding="utf-8"))["sha256"]


def test_no_global_randomness_is_used() -> None:
    task = crafting(seed=3)
    random.seed(1)
    before, first = random.getstate(), transcript(task)
    assert random.getstate() == before
    random.seed(2)
    assert transcript(task) == first


# -- state keys -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "routes"),
    [
        (crafting(**DOOR), [["get log", "get 2 iron"], ["get 2 iron", "get log"], ["get iron", "get log", "get iron"]]),
        (crafting(**DOOR), [["get 3 log", DOOR["recipes"][0]], ["get 1 log", DOOR["recipes"][0], "get 2 log"]]),
        (crafting(**DOOR), [[], ["get 1 plank"], ["inventory"], ["get 1 ghost", "look"]]),
        (
            household(seed=1, kind="clean"),  # shelf 1, rack 1, box 2, box 1, sink 1; the cup lies on the rack
            [
                ["go to rack 1"],
                ["go to shelf 1", "go to rack 1"],
                ["go to rack 1", "take cup 1 from rack 1", "move cup 1 to rack 1", "look", "inventory"],
                ["go to box 1", "open box 1", "close box 1", "go to rack 1"],
                ["open rack 1", "go to rack 1", "go to rack 1"],
            ],
        ),
    ],
)  # fmt: skip
def test_equal_states_have_equal_keys(task: Task, routes: list[list[str]]) -> None:
    keys = set()
    for route in routes:
        env = made(task)
        play(env, *route)
        keys.add(env.state_key())
    assert len(keys) == 1


@pytest.mark.parametrize("task", [crafting(**DOOR), household(seed=1, kind="clean"), household(seed=3, kind="look")])
def test_equal_keys_mean_equal_replies(task: Task) -> None:
    """Walks that meet in a state go on alike: nothing the world answers by is missing from the key."""
    rng = random.Random(5)
    pool = sorted(set(words_at_random(task, rng, 400)))
    replies: dict[tuple[Hashable, str], StepResult] = {}
    met = 0
    for _ in range(20):
        env = made(task)
        for _ in range(8):
            useful = [a for a in pool if not copy.deepcopy(env).step(a).refused] or pool
            for action in rng.sample(pool, 3) + useful[:8]:
                reply = copy.deepcopy(env).step(action)
                met += (env.state_key(), action) in replies
                assert replies.setdefault((env.state_key(), action), reply) == reply
            if env.step(rng.choice(useful)).terminated:
                break
    assert met > 100


def test_environments_are_found_by_name() -> None:
    assert sorted(ENVIRONMENTS) == ["crafting", "household"]
    assert make_env(crafting(seed=1)).reset(crafting(seed=1)).startswith("Recipes:")
