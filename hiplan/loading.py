"""Loading a local model without importing torch before it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hiplan.errors import ConfigError
from hiplan.trace import Role

if TYPE_CHECKING:
    from hiplan.models.local import LocalModel


def load_model(
    name: str = "tiny-v1",
    checkpoint: str | Path | None = None,
    *,
    planner: str | Path | None = None,
    executor: str | Path | None = None,
) -> LocalModel:
    """A model for ``Agent``: a shipped asset or folder, with trained adapters if some are given.

    ``checkpoint`` is a stage folder that a training run wrote (it knows its base model). ``planner`` and ``executor``
    are LoRA adapters in PEFT's format on the base ``name``; a role without one is the base itself. Raises
    ``ConfigError`` where there is no such model or ``hiplan[train]`` is not installed, ``CheckpointError`` for a broken
    checkpoint.
    """
    try:
        from hiplan.models.local import LocalModel
        from hiplan.models.stages import load_adapters, load_stage
    except ImportError as error:
        raise ConfigError(
            f"a local model needs torch, transformers and peft ({error}); install them with pip install 'hiplan[train]'"
        ) from None
    if checkpoint is not None:
        if name != "tiny-v1" or planner is not None or executor is not None:
            raise ConfigError("a checkpoint knows its base and has both roles; give it alone, or adapters without it")
        return load_stage(Path(checkpoint))
    adapters: dict[Role, Path] = {}
    if planner is not None:
        adapters["planner"] = Path(planner)
    if executor is not None:
        adapters["executor"] = Path(executor)
    return load_adapters(name, adapters) if adapters else LocalModel.load(name)
