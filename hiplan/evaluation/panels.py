"""Task panels: fixed, named, hashed lists of task specifications, and the distributions they come from.

``train``: what training samples from. ``heldout``: deeper, longer, other goals; never trained on.
``dev``: half of each, from other seeds; tuning looks at it alone. A panel seed makes a fresh panel of
the same distribution, so anybody can check on tasks nobody has seen.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from hiplan.errors import ConfigError
from hiplan.files import read_text
from hiplan.task import Task

PanelName = Literal["train", "dev", "heldout"]
EnvName = Literal["mixed", "crafting", "household"]
TaskMix = Callable[[random.Random], Task]
SIZES: dict[PanelName, int] = {"train": 128, "dev": 64, "heldout": 128}


class Panel(BaseModel):
    """A list of tasks with a name; ``hash`` depends on the tasks alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    tasks: tuple[Task, ...]

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits of the tasks' SHA-256."""
        text = json.dumps([task.model_dump() for task in self.tasks], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @staticmethod
    def read(path: Path) -> Panel:
        """Read a panel file. Raises ``ConfigError`` where it is not one."""
        try:
            return Panel.model_validate_json(read_text(path, "panel file"))
        except ValidationError as error:
            raise ConfigError(f"{str(path)!r} is not a panel file: {error.errors()[0]['msg']}") from None


def train_task(rng: random.Random, env: EnvName = "mixed") -> Task:
    """Crafting of depth 1 to 3, Household with 3 to 5 places."""
    if _household(rng, env):
        kind = rng.choice(("put", "clean", "heat", "cool", "look"))
        return _household_task(rng, kind, rng.randint(3, 5), rng.randint(0, 4))
    depth = rng.choices((1, 2, 3), (0.15, 0.45, 0.4))[0]
    return _crafting_task(rng, depth, rng.randint(depth, depth + 1), rng.randint(0, 3))


def heldout_task(rng: random.Random, env: EnvName = "mixed") -> Task:
    """Crafting of depth 4 with more recipes and distractors; Household with 6 to 8 places, and pick-two."""
    if _household(rng, env):
        kind = rng.choice(("put", "clean", "heat", "cool", "look", "two"))
        return _household_task(rng, kind, rng.randint(6, 8), rng.randint(3, 6))
    return _crafting_task(rng, 4, rng.randint(4, 6), rng.randint(2, 4))


def _household(rng: random.Random, env: EnvName) -> bool:
    return rng.random() < {"mixed": 0.5, "crafting": 0.0, "household": 1.0}[env]


def _household_task(rng: random.Random, kind: str, places: int, clutter: int) -> Task:
    params: dict[str, JsonValue] = {"seed": rng.randrange(2**40), "kind": kind, "places": places, "clutter": clutter}
    return Task(env="household", params=params)


def _crafting_task(rng: random.Random, depth: int, crafts: int, distractors: int) -> Task:
    params: dict[str, JsonValue] = {
        "seed": rng.randrange(2**40),
        "depth": depth,
        "crafts": crafts,
        "width": rng.choice((2, 2, 3)),
        "distractors": distractors,
    }
    return Task(env="crafting", params=params)


def train_mix(env: EnvName = "mixed") -> TaskMix:
    """The distribution training samples from."""
    return lambda rng: train_task(rng, env)


def fresh_panel(name: PanelName, seed: int, env: EnvName = "mixed", size: int | None = None) -> Panel:
    """A panel of the same distribution, made from ``seed`` (0 made the shipped ones)."""
    rng = random.Random(f"panel {env} {name} {seed}")
    n = SIZES[name] if size is None else size
    if name == "dev":
        tasks = [train_task(rng, env) if i < n // 2 else heldout_task(rng, env) for i in range(n)]
    else:
        make = train_task if name == "train" else heldout_task
        tasks = [make(rng, env) for _ in range(n)]
    return Panel(name=f"{env}-{name}-{seed}", tasks=tuple(tasks))


def shipped_panel(name: PanelName, env: EnvName = "mixed") -> Panel:
    """The panel file that ships with hiplan, on which published figures were measured."""
    return Panel.read(Path(str(importlib.resources.files("hiplan"))) / "assets/panels" / f"{env}-{name}-0.json")
