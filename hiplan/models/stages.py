"""A trained stage on disk: adapters in PEFT's own format, and ``stage.json`` that says what they belong to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiplan.errors import CheckpointError
from hiplan.models.local import LocalModel
from hiplan.models.settings import LoraSettings, WeightsConfig
from hiplan.trace import Role


def save_stage(model: LocalModel, folder: Path, about: dict[str, Any], write: bool = True) -> None:
    """Write ``folder`` in one step: one PEFT adapter folder per set of weights, and ``stage.json``.

    ``write``: false in all but one of several processes.
    """
    beside = folder.with_name(f".{folder.name}.tmp")
    if write:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
    model.weights.save(beside, write)
    if not write:
        return
    weights = model.weights.config.model_dump(mode="json")
    about = about | {"prompts": model.prompts.name}
    known = {"base": model.base, "loaded_with": model.loaded_with, "weights": weights, "about": about}
    (beside / "stage.json").write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
    if folder.exists():
        shutil.rmtree(folder)
    beside.rename(folder)


def load_stage(folder: Path, trained: bool = True) -> LocalModel:
    """The model with the stage's adapters, or as it was before any training.

    Raises ``CheckpointError`` where there is no whole stage.
    """
    try:
        known = json.loads((folder / "stage.json").read_text())
        base, weights = known["base"], WeightsConfig.model_validate(known["weights"])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{str(folder)!r} is not a stage checkpoint ({type(error).__name__}); expected a folder such as "
            "RUN/stages/joint with stage.json and adapters"
        ) from None
    adapters = folder if trained else None  # new adapters do nothing
    return LocalModel.load(base, weights, adapters=adapters, **known.get("loaded_with", {}))


def load_adapters(base: str, adapters: Mapping[Role, Path]) -> LocalModel:
    """The base with PEFT's adapters for some roles. Raises ``CheckpointError`` where they are not such, or disagree."""
    found: set[LoraSettings] = set()
    for folder in adapters.values():
        try:
            known = json.loads((folder / "adapter_config.json").read_text())
            targets = known["target_modules"]
            kept = targets if isinstance(targets, str) else tuple(sorted(targets))
            found.add(LoraSettings(rank=known["r"], alpha=known["lora_alpha"], targets=kept))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{str(folder)!r} is no LoRA adapter in PEFT's format ({type(error).__name__})"
            ) from None
    if len(found) > 1:
        raise CheckpointError(
            "the adapters differ in rank, alpha or target modules; load roles that were trained alike"
        )
    model = LocalModel.load(base, WeightsConfig(mode="split", lora=found.pop()))
    for role, folder in adapters.items():
        model.weights.load_unit(role, folder)
    return model
