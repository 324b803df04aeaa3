"""Tasks of the embedded environments, and what happens in them as text."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from itertools import product
from typing import Any

from hiplan.env import Environment
from hiplan.envs import Crafting, make_env
from hiplan.task import StepResult, Task

KINDS = ("put", "clean", "heat", "cool", "two", "look")
STICKS = [
    "craft 4 oak planks using 1 oak log",
    "craft 4 birch planks using 1 birch log",
    "craft 4 stick using 2 planks",
]
STICK = {"recipes": STICKS, "goal": "stick", "kinds": {"planks": ["oak planks", "birch planks"]}}
DOOR = {
    "recipes": [
        "craft 2 plank using 1 log",
        "craft 1 hinge using 2 iron, 1 tin",
        "craft 1 door using 4 plank, 1 hinge",
    ],
    "goal": "door",
}


def crafting(**params: Any) -> Task:
    return Task(env="crafting", params=params)


def household(**params: Any) -> Task:
    return Task(env="household", params=params)


def crafting_tasks() -> Iterator[Task]:
    rng = random.Random("crafting knobs")
    for seed in range(120):
        depth = seed % 6 + 1
        yield crafting(
            seed=seed,
            depth=depth,
            crafts=rng.randint(1, depth + 4),
            width=rng.randint(1, 4),
            distractors=rng.randint(0, 8),
            max_count=rng.randint(1, 9),
            max_yield=rng.randint(1, 9),
        )
    yield from (crafting(seed=seed) for seed in (0, -1, 2**63))


def household_tasks() -> Iterator[Task]:
    rng = random.Random("household knobs")
    for seed, kind in product(range(40), KINDS):
        places, clutter = rng.randint(2, 20), rng.randint(0, 20)
        yield household(seed=seed, kind=kind, places=places, clutter=clutter, rooms=seed % 4 + 1)
    yield from (household(seed=seed) for seed in (0, -1, 2**63))


def play(env: Environment, *actions: str) -> list[StepResult]:
    return [env.step(action) for action in actions]


def made(task: Task) -> Any:
    env = make_env(task)
    env.reset(task)
    return env


def words_at_random(task: Task, rng: random.Random, n: int = 25) -> list[str]:
    """Actions of the right form about things of this task."""
    env = made(task)
    if isinstance(env, Crafting):
        items = [*env.recipes, *{item for recipe in env.recipes.values() for item, _ in recipe.needs}]
        forms = [f"get {rng.randint(0, 3)} {item}" for item in sorted(items)] + [str(r) for r in env.recipes.values()]
    else:
        things, places = [*env.where, "ghost 1"], env.all_places
        forms = [f"{verb} {place}" for verb in ("go to", "open", "close", "use") for place in places]
        forms += [f"take {thing} from {place}" for thing, place in product(things, places)]
        forms += [f"{verb} {thing} {at} {place}" for verb, at in (("move", "to"), ("put", "in/on"), ("clean", "with"))
                  for thing, place in product(things, places)]  # fmt: skip
    return rng.choices([*forms, "inventory", "look"], k=n)


def transcript(task: Task) -> list[str]:
    """The task as text: random but well-formed actions, then the oracle's to the end."""
    env = made(task)
    lines = env.reset(task).splitlines()

    def act(action: str) -> bool:
        result = env.step(action)
        said = f"{result.observation} {result.reward:g}{' refused' * result.refused}{' end' * result.terminated}"
        lines.extend([f"> {action}", *said.splitlines(), repr(env.state_key())])
        return result.terminated

    ended = any(act(action) for action in words_at_random(task, random.Random(task.id), n=8))
    while not ended and len(lines) < 2000:
        plan = env.oracle_plan()
        lines.extend(f"plan {s.id} {s.description} {s.after} {env.subgoal_of(s.description)}" for s in plan.steps)
        ended = act(env.oracle_action(None))
    return lines


def fingerprint() -> dict[str, str]:
    out = {}
    for name, tasks in (("crafting", crafting_tasks()), ("household", household_tasks())):
        text = "\n".join(line for task in tasks for line in transcript(task))
        out[name] = hashlib.sha256(text.encode()).hexdigest()
    return out
