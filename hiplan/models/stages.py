"""A trained stage on disk: adapters in PEFT's own format, and ``stage.json`` that says what they belong to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hiplan.errors import CheckpointError
from hiplan.models.local import LocalModel
from hiplan.models.settings import LoraSettings


def save_stage(model: LocalModel, folder: Path, base: str, about: dict[str, Any]) -> None:
    """Write ``folder`` in one step: one PEFT adapter folder per set of weights, and ``stage.json``."""
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    model.weights.save(beside)
    known = {"base": base, "weights": model.weights.mode, "lora": model.weights.lora.model_dump(), "about": about}
    (beside / "stage.json").write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
    if folder.exists():
        shutil.rmtree(folder)
    beside.rename(folder)


def load_stage(folder: Path) -> LocalModel:
    """The model with the stage's adapters. Raises ``CheckpointError`` where there is no whole stage."""
    try:
        known = json.loads((folder / "stage.json").read_text())
        base, mode, lora = known["base"], known["weights"], LoraSettings.model_validate(known["lora"])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{str(folder)!r} is not a stage checkpoint ({type(error).__name__}); expected a folder such as "
            "RUN/stages/joint with stage.json and adapters"
        ) from None
    return LocalModel.load(base, mode, lora, adapters=folder)
