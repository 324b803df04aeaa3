"""Tasks of the embedded environments: distributions, suites, and panels (fixed, named and hashed lists of tasks).

``train`` is the distribution that reinforcement learning samples from. ``heldout`` has deeper and longer tasks and one
more kind; reinforcement learning never samples them, and about one in ten tasks of tiny-v1's pretraining was of these
kinds. The ``dev`` panel has half of each, from other seeds, and is the only panel used for tuning. A panel seed draws a
fresh panel from the same distribution, to test on unseen tasks.
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
from hiplan.files import problem, read_text
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
    """A named list of tasks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    tasks: tuple[Task, ...]

    @property
    def hash(self) -> str:
        """The first twelve hexadecimal digits of the SHA-256 of the tasks; the name does not count."""
        text = json.dumps([task.model_dump() for task in self.tasks], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """Task indices: ``all`` of them, and those of each environment if the panel has several."""
        names = sorted({task.env for task in self.tasks})
        by_env = {env: tuple(i for i, task in enumerate(self.tasks) if task.env == env) for env in names}
        return {ALL: tuple(range(len(self.tasks)))} | (by_env if len(names) > 1 else {})

    def cut(self, tasks: int) -> Panel:
        """A panel of only ``tasks`` of the tasks, evenly spread over the panel if it has at least twice as many."""
        step = max(1, len(self.tasks) // tasks)
        return Panel(name=f"{self.name}-{tasks}", tasks=self.tasks[::step][:tasks])

    @staticmethod
    def read(path: Path) -> Panel:
        """Read a panel file. Raises ``ConfigError`` if it is not one."""
        try:
            return Panel.model_validate_json(read_text(path, "panel file"))
        except ValidationError as error:
            raise ConfigError(
                f"{str(path)!r} is not a panel file ({problem(error)}); expected JSON that Panel.model_dump_json writes"
            ) from None


def train_task(rng: random.Random, env: EnvName = "mixed") -> Task:
    """A task of the train distribution: Crafting of depth 1 to 3, Household with 3 to 5 places."""
    if _household(rng, env):
        kind = rng.choice(("put", "clean", "heat", "cool", "look"))
        return _household_task(rng, kind, rng.randint(3, 5), rng.randint(0, 4))
    depth = rng.choices((1, 2, 3), (0.15, 0.45, 0.4))[0]
    return _crafting_task(rng, depth, rng.randint(depth, depth + 1), rng.randint(0, 3))


def heldout_task(rng: random.Random, env: EnvName = "mixed") -> Task:
    """A task of the held-out distribution.

    Crafting of depth 4 with more recipes and distractors; Household with 6 to 8 places and one more kind, pick-two.
    """
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
    """The task distributions for training and evaluation, and the factory of their environments.

    ``train`` and ``heldout`` draw one task each. Without ``heldout``, held-out panels are further tasks of ``train``.
    """

    name: str
    make_env: EnvFactory
    train: TaskMix
    heldout: TaskMix | None = None

    def draw(self, rng: random.Random, heldout: bool = False) -> Task:
        """Draw one task. Raises ``UserError`` if the suite's function fails or does not return a task."""
        mix = self.heldout if heldout and self.heldout else self.train
        with calling(f"task suite {self.name!r}"):
            task = mix(rng)
        if not isinstance(task, Task):
            raise ConfigError(f"the task suite {self.name!r} returned {shown(task)}; expected a hiplan.Task")
        return task


def make_env(task: Task) -> Environment:
    """Build the embedded environment that a task names. Raises ``TaskError`` for an unknown name."""
    factory = ENVIRONMENTS.get(task.env)
    if factory is None:
        raise TaskError(f"unknown environment {task.env!r}; expected one of {', '.join(sorted(ENVIRONMENTS))}")
    return factory(task)


def _embedded(env: EnvName) -> TaskSuite:
    return TaskSuite(env, make_env, partial(train_task, env=env), partial(heldout_task, env=env))


SUITES: dict[str, TaskSuite] = {env: _embedded(env) for env in ("mixed", "crafting", "household")}


def suite(env: str | TaskSuite) -> TaskSuite:
    """The suite ``env``: an embedded one by name, or a user's as ``module:name`` or ``file.py:name``.

    Raises ``ConfigError`` if there is no such suite.
    """
    found = env if isinstance(env, TaskSuite) else named(env, SUITES, "task suite")
    if not isinstance(found, TaskSuite):
        raise ConfigError(f"{env!r} is a {type(found).__name__}; expected a hiplan.envs.TaskSuite")
    for part, function in (("make_env", found.make_env), ("train", found.train), ("heldout", found.heldout)):
        if not callable(function) and (part, function) != ("heldout", None):
            raise ConfigError(f"the task suite {found.name!r} has {shown(function)} as {part}; expected a function")
    return found


def train_mix(env: str | TaskSuite = "mixed") -> TaskMix:
    """The distribution that training samples from."""
    return suite(env).train


def fresh_panel(name: PanelName, seed: int, env: str | TaskSuite = "mixed", size: int | None = None) -> Panel:
    """A panel drawn with ``seed``; the shipped panels have seed 0."""
    known = suite(env)
    rng = random.Random(f"panel {known.name} {name} {seed}")
    n = SIZES[name] if size is None else size
    first_heldout = {"train": n, "dev": n // 2, "heldout": 0}[name]
    tasks = [known.draw(rng, heldout=i >= first_heldout) for i in range(n)]
    return Panel(name=f"{known.name}-{name}-{seed}", tasks=tuple(tasks))


def shipped_panel(name: PanelName, env: EnvName = "mixed") -> Panel:
    """A panel that ships with hiplan; the published results were measured on these."""
    return Panel.read(Path(str(importlib.resources.files("hiplan"))) / "assets/panels" / f"{env}-{name}-0.json")


def named_panel(name: str) -> Panel:
    """The panel with that name.

    ``mixed-train-0`` is shipped, ``mixed-train-7`` is drawn with seed 7, ``mixed-train-0-48`` is cut to 48 tasks.
    Raises ``ConfigError`` for any other form of name.
    """
    found = re.fullmatch(r"(mixed|crafting|household)-(train|dev|heldout)-(\d{1,18})(?:-([1-9]\d{0,5}))?", name)
    if found is None:
        raise ConfigError(f"unknown panel {name!r}; expected a name such as mixed-train-0 or mixed-train-0-48")
    env, kind, seed, tasks = cast(EnvName, found[1]), cast(PanelName, found[2]), int(found[3]), found[4]
    panel = shipped_panel(kind, env) if seed == 0 else fresh_panel(kind, seed, env)
    return panel.cut(int(tasks)) if tasks else panel


def is_heldout_kind(task: Task) -> bool | None:
    """Whether only the held-out distribution has such tasks; ``None`` for tasks of other environments."""
    depth, places = task.params.get("depth"), task.params.get("places")
    if task.env == "crafting" and isinstance(depth, int):
        return depth > 3
    if task.env == "household" and isinstance(places, int):
        return places > 5 or task.params.get("kind") == "two"
    return None
