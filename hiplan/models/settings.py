"""Which weights the roles have, as plain settings; needs no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

WeightMode = Literal["joint", "split"]


class LoraSettings(BaseModel):
    """``rank`` and ``alpha`` (scale = alpha / rank) of every adapter; ``targets`` as in PEFT."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    targets: str | tuple[str, ...] = "all-linear"


class WeightsConfig(BaseModel):
    """Which weights the roles have: ``joint`` or ``split``, and their LoRA."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: WeightMode = "split"
    lora: LoraSettings = LoraSettings()
