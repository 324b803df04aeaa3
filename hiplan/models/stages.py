"""A trained stage on disk: adapters in PEFT's own format, and ``stage.json`` that says what they belong to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError
from safetensors import SafetensorError

from hiplan.errors import CheckpointError
from hiplan.files import problem, read_object, saving
from hiplan.models.adapters import load_unit, save_weights
from hiplan.models.local import LocalModel
from hiplan.models.settings import DType, LoraSettings, WeightsConfig
from hiplan.trace import Role


class LoadedWith(BaseModel):
    """How the base was read: arguments of ``LocalModel.load``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: DType = "auto"
    window: int | None = None
    keep_reasoning: bool = True
    plain_delimiters: bool = False


class _Limits(BaseModel):
    plan_tokens: PositiveInt = 1
    action_tokens: PositiveInt = 1


class _Facts(BaseModel):
    """What is read of ``about``; it has more, and older ones have less."""

    env: str = ""
    turns: NonNegativeInt = 0
    eval_turns: NonNegativeInt = 0
    decoding: _Limits | None = None
    replan: str | None = None
    revise: str | None = None
    matcher: str | None = None


def _checked(about: dict[str, Any]) -> dict[str, Any]:
    _Facts.model_validate(about, strict=True)
    return about


class StageFile(BaseModel):
    """``stage.json``: the base the adapters belong to, how it was read, and ``about``, what the run says of itself."""

    model_config = ConfigDict(frozen=True)

    base: str
    weights: WeightsConfig
    loaded_with: LoadedWith = LoadedWith()
    about: Annotated[dict[str, Any], AfterValidator(_checked)] = Field(default_factory=dict)


def save_stage(model: LocalModel, folder: Path, about: dict[str, Any], write: bool = True) -> None:
    """Write ``folder`` in one step: one PEFT adapter folder per set of weights, and ``stage.json``.

    ``write``: false in all but one of several processes.
    """
    beside = folder.with_name(f".{folder.name}.tmp")
    with saving(folder, SafetensorError):
        if write:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
        save_weights(model.weights, beside, write)
        if not write:
            return
        weights = model.weights.config.model_dump(mode="json")
        about = about | {"prompts": model.prompts.name}
        known = {"base": model.base, "loaded_with": model.loaded_with, "weights": weights, "about": about}
        (beside / "stage.json").write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        beside.rename(folder)


def read_stage(folder: Path) -> StageFile:
    """What ``stage.json`` says. Raises ``CheckpointError`` where it is not of a stage."""
    try:
        return StageFile.model_validate(read_object(folder / "stage.json", wrong=CheckpointError))
    except ValidationError as error:
        why = problem(error)
    except CheckpointError as error:
        why = str(error)
    raise CheckpointError(
        f"{str(folder)!r} is not a stage checkpoint ({why}); expected a folder such as RUN/stages/joint with "
        "stage.json and adapters"
    )


def load_stage(folder: Path, trained: bool = True) -> LocalModel:
    """The model with the stage's adapters, or as it was before any training.

    Raises ``CheckpointError`` where there is no whole stage.
    """
    known = read_stage(folder)
    adapters = folder if trained else None  # new adapters do nothing
    return LocalModel.load(known.base, known.weights, adapters=adapters, **vars(known.loaded_with))


def load_adapters(base: str, adapters: Mapping[Role, Path]) -> LocalModel:
    """The base with PEFT's adapters for some roles. Raises ``CheckpointError`` where they are not such, or disagree."""
    found: set[LoraSettings] = set()
    for folder in adapters.values():
        try:
            known = read_object(folder / "adapter_config.json", wrong=CheckpointError)
            targets = known["target_modules"]
            kept = targets if isinstance(targets, str) else tuple(sorted(targets))
            found.add(LoraSettings(rank=known["r"], alpha=known["lora_alpha"], targets=kept))
        except (CheckpointError, ValueError, KeyError, TypeError) as error:
            why = str(error) if isinstance(error, CheckpointError) else "r, lora_alpha and target_modules are expected"
            raise CheckpointError(f"{str(folder)!r} is no LoRA adapter in PEFT's format: {why}") from None
    if len(found) > 1:
        raise CheckpointError(
            "the adapters differ in rank, alpha or target modules; load roles that were trained alike"
        )
    model = LocalModel.load(base, WeightsConfig(mode="split", lora=found.pop()))
    for role, folder in adapters.items():
        load_unit(model.weights, role, folder)
    return model
