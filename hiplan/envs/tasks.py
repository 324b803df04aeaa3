"""Tasks of the embedded environments: distributions, suites, and panels (fixed, named, hashed lists of tasks).

``train``: what reinforcement learning samples from. ``heldout``: deeper and longer tasks, and one more kind. Such tasks
are absent from reinforcement learning; in tiny-v1's pretraining they were rare, about one in ten. ``dev``: half of
each, from other seeds; tuning looks at it alone. A panel seed makes a fresh panel of the same distribution, so anybody
can check on tasks nobody has seen.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from hiplan.env import EnvFactory, Environment
from hiplan.envs.crafting import Crafting
from hiplan.envs.household import Household
from hiplan.errors import ConfigError, TaskError
from hiplan.files import read_text
from hiplan.named import calling, named
from hiplan.task import Task
from hiplan.text import shown

ALL = "all"
PanelName = Literal["train", "dev", "heldout"]
EnvName = Literal["mixed", "crafting", "household"]
TaskMix = Callable[[random.Random], Task]
ENVIRONMENTS: dict[str, EnvFactory] = {"crafting": Crafting, "household": Household}
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

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """The tasks' places: ``all`` of them, then those of each environment where there are several."""
        names = sorted({task.env for task in self.tasks})
        by_env = {env: tuple(i for i, task in enumerate(self.tasks) if task.env == env) for env in names}
        return {ALL: tuple(range(len(self.tasks)))} | (by_env if len(names) > 1 else {})

    def cut(self, tasks: int) -> Panel:
        """Only so many of the tasks, evenly spread over the panel where it has at least twice as many."""
        step = max(1, len(self.tasks) // tasks)
        return Panel(name=f"{self.name}-{tasks}", tasks=self.tasks[::step][:tasks])

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


@dataclass(frozen=True)
class TaskSuite:
    """Tasks to train on and to measure on, and how their environments are built.

    ``train`` and ``heldout`` draw a task; without ``heldout``, panels of that name are further tasks of ``train``.
    """

    name: str
    make_env: EnvFactory
    train: TaskMix
    heldout: TaskMix | None = None

    def draw(self, rng: random.Random, heldout: bool = False) -> Task:
        """A task. Raises ``UserError`` where the suite's own function fails or gives something else."""
        mix = self.heldout if heldout and self.heldout else self.train
        with calling(f"task suite {self.name!r}"):
            task = mix(rng)
        if not isinstance(task, Task):
            raise ConfigError(f"the task suite {self.name!r} gave {shown(task)} for a task; expected a hiplan.Task")
        return task


def make_env(task: Task) -> Environment:
    """Build the embedded environment a task names. Raises ``TaskError`` for an unknown name."""
    factory = ENVIRONMENTS.get(task.env)
    if factory is None:
        raise TaskError(f"no environment is called {task.env!r}; expected one of {', '.join(sorted(ENVIRONMENTS))}")
    return factory(task)


def _embedded(env: EnvName) -> TaskSuite:
    return TaskSuite(env, make_env, partial(train_task, env=env), partial(heldout_task, env=env))


SUITES: dict[str, TaskSuite] = {env: _embedded(env) for env in ("mixed", "crafting", "household")}


def suite(env: str | TaskSuite) -> TaskSuite:
    """A suite of hiplan's by name, or a user's as ``module:name`` or ``file.py:name``. Raises ``ConfigError``."""
    found = env if isinstance(env, TaskSuite) else named(env, SUITES, "task suite")
    if not isinstance(found, TaskSuite):
        raise ConfigError(f"{env!r} is a {type(found).__name__}; expected a hiplan.envs.TaskSuite")
    for part, function in (("make_env", found.make_env), ("train", found.train), ("heldout", found.heldout)):
        if not callable(function) and (part, function) != ("heldout", None):
            raise ConfigError(f"the task suite {found.name!r} has {shown(function)} as {part}; expected a function")
    return found


def train_mix(env: str | TaskSuite = "mixed") -> TaskMix:
    """The distribution training samples from."""
    return suite(env).train


def fresh_panel(name: PanelName, seed: int, env: str | TaskSuite = "mixed", size: int | None = None) -> Panel:
    """A panel of the same distribution, made from ``seed`` (0 made the shipped ones)."""
    known = suite(env)
    rng = random.Random(f"panel {known.name} {name} {seed}")
    n = SIZES[name] if size is None else size
    first_heldout = {"train": n, "dev": n // 2, "heldout": 0}[name]
    tasks = [known.draw(rng, heldout=i >= first_heldout) for i in range(n)]
    return Panel(name=f"{known.name}-{name}-{seed}", tasks=tuple(tasks))


def shipped_panel(name: PanelName, env: EnvName = "mixed") -> Panel:
    """The panel file that ships with hiplan, on which published figures were measured."""
    return Panel.read(Path(str(importlib.resources.files("hiplan"))) / "assets/panels" / f"{env}-{name}-0.json")


def named_panel(name: str) -> Panel:
    """The panel of that name: ``mixed-train-0`` as shipped, ``mixed-train-7`` made anew, ``mixed-train-0-48`` cut.

    Raises ``ConfigError`` for a name that no panel of the embedded environments has.
    """
    found = re.fullmatch(r"(mixed|crafting|household)-(train|dev|heldout)-(\d{1,18})(?:-([1-9]\d{0,5}))?", name)
    if found is None:
        raise ConfigError(f"no panel is called {name!r}; expected a name such as mixed-train-0 or mixed-train-0-48")
    env, kind, seed, tasks = cast(EnvName, found[1]), cast(PanelName, found[2]), int(found[3]), found[4]
    panel = shipped_panel(kind, env) if seed == 0 else fresh_panel(kind, seed, env)
    return panel.cut(int(tasks)) if tasks else panel


def is_heldout_kind(task: Task) -> bool | None:
    """Whether only the held-out distribution has such tasks; ``None`` for a task of another environment."""
    depth, places = task.params.get("depth"), task.params.get("places")
    if task.env == "crafting" and isinstance(depth, int):
        return depth > 3
    if task.env == "household" and isinstance(places, int):
        return places > 5 or task.params.get("kind") == "two"
    return None
