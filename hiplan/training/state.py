"""The state of a run (cursor, weights, optimizers), saved atomically and restored bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from pydantic import BaseModel, NonNegativeInt, ValidationError
from torch import Tensor

from hiplan.errors import CheckpointError
from hiplan.files import problem
from hiplan.training import checkpoint
from hiplan.training.config import TrainConfig
from hiplan.training.learner import Learner


@dataclass
class Cursor:
    """The position of a run.

    ``stage`` and ``iteration``: the next iteration. ``total``: iterations of all stages so far. ``env_steps``:
    environment steps so far. ``warm``: whether the warm start is done.
    """

    stage: NonNegativeInt = 0
    iteration: NonNegativeInt = 0
    total: NonNegativeInt = 0
    env_steps: NonNegativeInt = 0
    warm: bool = False


class _State(BaseModel):
    """The content of ``state.json``."""

    seed: int
    metrics: NonNegativeInt
    cursor: Cursor


def save(folder: Path, cursor: Cursor, learner: Learner, rows: int, seed: int, accelerator: Accelerator) -> None:
    """Write a checkpoint in the main process while the others wait. ``rows``: the number of metric rows so far."""
    tensors = learner.state()
    if accelerator.is_main_process:
        state = {"cursor": vars(cursor), "metrics": rows, "seed": seed}
        checkpoint.save_state(folder / f"{cursor.total:06d}-{cursor.stage}", tensors, state)
        checkpoint.prune(folder, keep=2)
    accelerator.wait_for_everyone()


def restore(
    found: Path, tensors: dict[str, Tensor], state: dict[str, Any], learner: Learner, config: TrainConfig, seed: int
) -> tuple[Cursor, int]:
    """Load a checkpoint into the learner; returns the cursor and the number of metric rows.

    Raises ``CheckpointError`` if it has no valid state or was written with another seed.
    """
    try:
        known = _State.model_validate(state)
    except ValidationError as error:
        why = problem(error)
        raise CheckpointError(f"{str(found)!r} does not hold the state of a run ({why}); delete it") from None
    if known.seed != seed:
        raise CheckpointError(f"{str(found)!r} was written with seed {known.seed}, not {seed}; resume with that seed")
    cursor, stages = known.cursor, len(config.stages)
    if cursor.stage > stages or (cursor.stage == stages and cursor.iteration > 0):
        raise CheckpointError(
            f"{str(found)!r} was written in stage {cursor.stage}, but the run has {stages} stages; restore its config"
        )
    learner.load(tensors, config.stages[cursor.stage] if cursor.iteration > 0 else None)
    return cursor, known.metrics
