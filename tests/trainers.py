"""Trainers on a trivial environment: three short stages, and what a test may watch of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from doubles import Letters, letters, random_model
from torch import Tensor

from hiplan.coordination import ReplanPolicy
from hiplan.env import Environment
from hiplan.envs import TaskSuite
from hiplan.models.local import LocalModel
from hiplan.sampler import Job
from hiplan.task import Task
from hiplan.trace import ROLES, Episode
from hiplan.training.algorithm import Algorithm
from hiplan.training.config import Stage, TrainConfig
from hiplan.training.trainer import ProgressiveTrainer

EXECUTOR = Stage(name="executor", trains=("executor",), plans="oracle", iterations=2, learning_rate=0.01)
PLANNER = Stage(name="planner", trains=("planner",), iterations=2, learning_rate=0.01)
JOINT = Stage(name="joint", trains=ROLES, iterations=2, learning_rate=0.01, no_plan=0.3)
TWO = letters(2)


def build(
    *stages: Stage,
    model: LocalModel | None = None,
    tasks: Sequence[Task] = (TWO,),
    make_env: Callable[[Task], Environment] = Letters,
    folder: Path | None = None,
    seed: int = 0,
    checkpoint_every: int = 2,
    replan: ReplanPolicy | None = None,
    config: dict[str, Any] | None = None,
    algorithm: Algorithm | None = None,
    **settings: Any,
) -> ProgressiveTrainer:
    defaults = {"groups": 3, "group_size": 4, "plan_tokens": 4, "action_tokens": 4, "turns": 2}
    known = TrainConfig(stages=stages, **(defaults | settings | (config or {})))
    model = model or random_model(seed=1)
    mix = lambda rng: rng.choice(tasks)  # noqa: E731
    suite = TaskSuite("letters", make_env, mix)
    return ProgressiveTrainer(
        model, suite, config=known, seed=seed, output_dir=folder, resume=True, checkpoint_every=checkpoint_every,
        replan=replan, algorithm=algorithm,
    )  # fmt: skip


def watch(run: ProgressiveTrainer, change: Callable[[list[Episode]], None] = lambda episodes: None) -> list[Job]:
    """All jobs that the trainer plays from now on; ``change`` may alter their episodes."""
    seen: list[Job] = []

    def share(jobs: Sequence[Job], play: Callable[[Sequence[Job]], list[Episode]]) -> list[Episode]:
        seen.extend(jobs)
        change(episodes := play(jobs))
        return episodes

    run.sampler = replace(run.sampler, share=share)
    return seen


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Names of the adapters in which any bit differs."""
    return {key.split(".")[0] for key, value in after.items() if not torch.equal(value, before[key])}


def replace_stage(stage: Stage, **changes: Any) -> Stage:
    return stage.model_copy(update=changes)


class Stopped(BaseException):
    """Stands for a person's Ctrl-C or a lost machine."""
