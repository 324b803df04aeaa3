"""From one weight mode to another, where the roles stay what they are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hiplan.errors import ConfigError
from hiplan.models.settings import UNITS, LoraSettings, WeightMode, WeightsConfig
from hiplan.trace import Role


def converted(
    state: Mapping[str, Tensor], config: WeightsConfig, mode: WeightMode, keep: Role | None = None
) -> tuple[dict[str, Tensor], WeightsConfig]:
    """``RoleWeights.state`` and config for another mode, with which both roles answer as before.

    Joint to split or separate: both roles start from the one adapter. Joint to partial: it becomes the shared one, and
    the roles' own are not in the state (they start fresh, and so change nothing). Partial to split or separate: each
    role's two adapters become one of twice the rank. Anything to joint: only the weights of the role ``keep``
    survive. Raises ``ConfigError`` where the roles would not stay what they are.
    """
    if mode == config.mode:
        return dict(state), config
    if config.method == "full" and mode not in ("joint", "separate"):
        raise ConfigError(f"whole models have no adapters to make {mode!r} weights of; expected joint or separate")
    if config.executor_model is not None:
        raise ConfigError(f"roles on two different base models cannot become {mode!r}; they stay separate")
    if mode == "joint" and keep is None:
        raise ConfigError("two roles' weights cannot become one; say which role's to keep (planner or executor)")
    if mode == "partial" and config.mode != "joint":
        raise ConfigError(f"{config.mode!r} weights share nothing that could become partial's shared adapter")
    units = {unit: _of(state, unit) for role in UNITS[config.mode].values() for unit in role}
    lora = config.lora
    if config.mode == "partial":
        units = {role: _sum(units["shared"], units[role]) for role in UNITS["split"]}
        lora = LoraSettings(rank=2 * lora.rank, alpha=2 * lora.alpha, targets=lora.targets)
    source: dict[str, str]
    if mode == "joint":
        source = {"joint": str(keep)}
    elif mode == "partial":
        source = {"shared": "joint"}
    else:
        source = {role: "joint" if config.mode == "joint" else role for role in UNITS[mode]}
    out = {f"{new}.{key}": value.clone() for new, old in source.items() for key, value in units[old].items()}
    return out, config.model_copy(update={"mode": mode, "lora": lora})


def _of(state: Mapping[str, Tensor], unit: str) -> dict[str, Tensor]:
    mark = f"{unit}."
    return {key.removeprefix(mark): value for key, value in state.items() if key.startswith(mark)}


def _sum(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Two adapters as one: (B1 B2) (A1; A2) = B1 A1 + B2 A2."""
    return {key: torch.cat([one[key], other[key]], 0 if ".lora_A." in key else 1) for key in one}
