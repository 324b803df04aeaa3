"""The roles' weights on disk: adapters in PEFT's format, whole models in transformers' format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hiplan.errors import CheckpointError
from hiplan.files import read_object
from hiplan.models.shards import split_like, whole
from hiplan.models.weights import RoleWeights, is_lora
from hiplan.trace import Role

PLAIN_LORA: dict[str, Any] = {
    "use_rslora": False, "use_dora": False, "rank_pattern": {}, "alpha_pattern": {}, "bias": "none",
    "lora_bias": False, "modules_to_save": None, "fan_in_fan_out": False,
}  # fmt: skip
"""PEFT options of hiplan's adapters. An adapter with other values computes something else, so it is refused."""


def save_weights(weights: RoleWeights, folder: Path, write: bool = True) -> None:
    """Write every unit to ``folder/{unit}/``.

    ``write``: false in all processes but one. Where weights are split, the others still have to call this, to gather
    them.
    """
    full = weights.config.method == "full"
    for body in weights.bodies:
        state = None
        if weights.sharded:
            state = {name: whole(p) for name, p in body.model.named_parameters() if full or is_lora(name)}
        if write and full:
            body.model.save_pretrained(str(folder / body.units[0]), state_dict=state)
        elif write:
            body.model.save_pretrained(str(folder), selected_adapters=list(body.units), state_dict=state)
            for unit in body.units:
                _sort_targets(folder / unit / "adapter_config.json")


def load_weights(weights: RoleWeights, folder: Path) -> None:
    """Read the units that ``save_weights`` wrote. Raises ``CheckpointError`` for a missing unit or another shape."""
    for body in weights.bodies:
        for unit in body.units:
            load_unit(weights, unit, folder / unit)


@torch.no_grad()
def load_unit(weights: RoleWeights, unit: str, folder: Path) -> None:
    """Read one unit from a folder that hiplan, PEFT or transformers wrote. Raises ``CheckpointError``."""
    config = weights.config
    path = folder / ("model.safetensors" if config.method == "full" else "adapter_model.safetensors")
    if not path.is_file():
        raise CheckpointError(f"no weights at {str(path)!r}; expected a checkpoint made with weights {config.mode!r}")
    if config.method == "lora" and (about := folder / "adapter_config.json").is_file():
        facts = read_object(about, "adapter's config", CheckpointError)
        expected = PLAIN_LORA | {"lora_alpha": config.lora.alpha}
        if odd := next((key for key, plain in expected.items() if (facts.get(key) or plain) != plain), None):
            raise CheckpointError(f"{str(about)!r} has {odd} {facts[odd]!r}, expected {expected[odd]!r}")
    saved = {key.removeprefix("base_model.model."): value for key, value in read_tensors(path).items()}
    mine = {key.removeprefix("base_model.model."): parameter for key, parameter in weights.unit(unit).items()}
    if config.method == "lora" and (more := sorted(set(saved) - set(mine))):
        raise CheckpointError(
            f"{str(path)!r} has the parameter {more[0]!r}, but the {unit!r} adapter of this model does not; "
            "use the base model and the LoRA targets that it was trained with"
        )
    for short, parameter in mine.items():
        if short not in saved or saved[short].shape != parameter.shape:
            raise CheckpointError(f"{str(path)!r} lacks {short} of shape {tuple(parameter.shape)}")
        parameter.copy_(split_like(parameter, saved[short]))


def export_weights(weights: RoleWeights, role: Role, folder: Path) -> None:
    """Write the role as a single PEFT adapter, or with ``full`` as a model, to be used without hiplan.

    A partial role's two adapters become one of twice the rank, whose product is their sum.
    """
    units = weights.units[role]
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(weights, folder / ".all")
    first = folder / ".all" / units[0]
    for file in first.iterdir():
        shutil.copyfile(file, folder / file.name)
    if len(units) > 1:
        parts = [read_tensors(folder / ".all" / unit / "adapter_model.safetensors") for unit in units]
        joined = {k: torch.cat([part[k] for part in parts], 0 if ".lora_A." in k else 1) for k in parts[0]}
        save_tensors(joined, folder / "adapter_model.safetensors", {"format": "pt"})
        config = json.loads((folder / "adapter_config.json").read_text())
        config |= {"r": config["r"] * len(units), "lora_alpha": config["lora_alpha"] * len(units)}
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    shutil.rmtree(folder / ".all")


def _sort_targets(path: Path) -> None:
    """Sort the target modules: PEFT writes them as a set, whose order differs from process to process."""
    known = json.loads(path.read_text())
    if isinstance(known["target_modules"], list):
        path.write_text(json.dumps(known | {"target_modules": sorted(known["target_modules"])}, indent=2) + "\n")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises ``CheckpointError`` where it cannot be read."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}") from None


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, contiguous and in a fixed order, so equal tensors give equal bytes."""
    save_file({key: tensors[key].contiguous() for key in sorted(tensors)}, path, metadata=metadata)
