"""Loading a local model without importing torch before it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hiplan.errors import ConfigError

if TYPE_CHECKING:
    from hiplan.models.local import LocalModel


def load_model(name: str = "tiny-v1", checkpoint: str | Path | None = None) -> LocalModel:
    """A model for ``Agent``: a shipped asset or folder, with a trained checkpoint's adapters if one is given.

    ``checkpoint`` is a stage folder that a training run wrote (it knows its base model). Raises ``ConfigError``
    where there is no such model or ``hiplan[train]`` is not installed, ``CheckpointError`` for a broken checkpoint.
    """
    try:
        from hiplan.models.local import LocalModel
        from hiplan.models.stages import load_stage
    except ImportError as error:
        raise ConfigError(
            f"a local model needs torch, transformers and peft ({error}); install them with pip install 'hiplan[train]'"
        ) from None
    return load_stage(Path(checkpoint)) if checkpoint is not None else LocalModel.load(name)
