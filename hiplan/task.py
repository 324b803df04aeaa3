"""Tasks and what an action leads to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class Task(BaseModel):
    """What to do, addressed by content: the environment's name and its parameters (with a seed)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: str = Field(min_length=1)
    params: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def id(self) -> str:
        """A short name that depends on the content alone."""
        text = json.dumps([self.env, self.params], sort_keys=True)
        return f"{self.env}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


@dataclass(frozen=True)
class StepResult:
    """What an action led to.

    ``reward`` is in the environment's own units (1.0 = task solved for the embedded ones).
    ``terminated``: the task ended; ``truncated``: a limit of the environment's own was hit.
    ``refused``: the action was illegal or malformed and changed nothing. ``success``: whether the task is solved;
    ``None`` leaves it to the total reward, of which 1 is success.
    """

    observation: str
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    refused: bool = False
    success: bool | None = None
    info: Mapping[str, JsonValue] = field(default_factory=dict)
