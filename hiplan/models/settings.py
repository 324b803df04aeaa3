"""Which weights the roles have, as plain settings; needs no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hiplan.trace import Role

WeightMode = Literal["joint", "split", "partial", "separate"]
DType = Literal["auto", "float32", "bfloat16"]

UNITS: dict[WeightMode, dict[Role, tuple[str, ...]]] = {
    "joint": {"planner": ("joint",), "executor": ("joint",)},
    "split": {"planner": ("planner",), "executor": ("executor",)},
    "partial": {"planner": ("shared", "planner"), "executor": ("shared", "executor")},
    "separate": {"planner": ("planner",), "executor": ("executor",)},
}
"""What each role is made of: sets of weights that are trained, saved and frozen as one."""


class LoraSettings(BaseModel):
    """``rank`` and ``alpha`` (scale = alpha / rank) of every adapter; ``targets`` as in PEFT."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    targets: str | tuple[str, ...] = "all-linear"


class WeightsConfig(BaseModel):
    """Which weights the roles have.

    ``mode``: ``joint`` (one set for both), ``split`` (an adapter each on one base), ``partial`` (a shared adapter plus
    one each, added) or ``separate`` (two models). ``method``: train ``lora`` adapters, or with ``full`` all weights
    of a joint model or of two separate ones. ``shared``: the shared adapter learns when both roles do
    (``together``: warm start and joint stage) or whenever one does (``always``). ``executor_model``: the
    executor's base where it is not the planner's; separate models may be of different size and family.
    ``quantize``: keep the frozen base in 4 bits (QLoRA); needs bitsandbytes and a GPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: WeightMode = "split"
    method: Literal["lora", "full"] = "lora"
    lora: LoraSettings = LoraSettings()
    shared: Literal["together", "always"] = "together"
    executor_model: str | None = None
    quantize: Literal["none", "4bit"] = "none"

    @model_validator(mode="after")
    def _possible(self) -> WeightsConfig:
        if self.method == "full" and self.mode in ("split", "partial"):
            raise ValueError(f"{self.mode!r} weights are adapters on one base; full training needs joint or separate")
        if self.method == "full" and self.quantize != "none":
            raise ValueError("a quantized base cannot be trained in full; use method lora")
        if self.executor_model is not None and self.mode != "separate":
            raise ValueError(f"{self.mode!r} weights have one base for both roles; executor_model needs separate")
        return self

    def units(self, role: Role) -> tuple[str, ...]:
        """The sets of weights the role is made of."""
        return UNITS[self.mode][role]

    def trained(self, roles: tuple[Role, ...]) -> tuple[str, ...]:
        """The units that learn when exactly these roles do."""
        owners: dict[str, list[Role]] = {}
        for role, units in UNITS[self.mode].items():
            for unit in units:
                owners.setdefault(unit, []).append(role)
        needs_all = {"shared"} if self.shared == "together" else set()
        return tuple(
            unit for unit, of in owners.items() if (all if unit in needs_all else any)(role in roles for role in of)
        )
