"""Export one role for other software, or convert a stage to another weight mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast, get_args

from hiplan.errors import ConfigError
from hiplan.models.adapters import export_weights
from hiplan.models.convert import converted
from hiplan.models.local import LocalModel
from hiplan.models.settings import WeightMode
from hiplan.models.stages import load_stage, read_stage, save_stage
from hiplan.trace import ROLES, Role


def export_role(checkpoint: Path, role: str, out: Path, merged: bool) -> None:
    """Write the role as a PEFT adapter, or merged into its base model, with its tokenizer.

    Raises ``ConfigError`` for an unknown role or a folder with files, and ``CheckpointError`` for a damaged stage.
    """
    if role not in ROLES:
        raise ConfigError(f"unknown role {role!r}; expected {' or '.join(ROLES)}")
    _empty(out)
    model = load_stage(checkpoint)

    if merged:
        whole: Any = model.weights.snapshot(role)
        whole.save_pretrained(out)
    else:
        export_weights(model.weights, role, out)
    model.specs[role].tokenizer.save_pretrained(out)


def convert_stage(checkpoint: Path, to: str, out: Path, keep: str | None) -> None:
    """Write the stage with another weight mode; ``keep``: the role whose weights become the joint ones.

    Raises ``ConfigError`` for an unknown mode or role, a conversion that would change a role, or a folder with files.
    """
    if to not in get_args(WeightMode):
        raise ConfigError(f"unknown weight mode {to!r}; expected one of {', '.join(get_args(WeightMode))}")
    if keep is not None and keep not in ROLES:
        raise ConfigError(f"unknown role {keep!r}; expected {' or '.join(ROLES)}")
    _empty(out)
    model = load_stage(checkpoint)
    state, config = converted(model.weights.state(), model.weights.config, cast(WeightMode, to), cast(Role, keep))
    known = read_stage(checkpoint)
    other = LocalModel.load(known.base, config, **vars(known.loaded_with))
    other.weights.load_state(other.weights.state() | state)
    save_stage(other, out, known.about | {"converted_from": model.weights.config.mode})


def _empty(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{str(out)!r} already contains files; choose another folder with --out")
