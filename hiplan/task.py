"""``Task``, and ``StepResult``, the result of an action."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class Task(BaseModel):
    """A task: the name of its environment and the environment's parameters, which include any seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: str = Field(min_length=1)
    params: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def id(self) -> str:
        """A short name; equal for equal content."""
        text = json.dumps([self.env, self.params], sort_keys=True)
        return f"{self.env}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


@dataclass(frozen=True)
class StepResult:
    """The result of an action.

    ``reward``: in the environment's own units; the embedded environments give 1.0 in total for a solved task.
    ``terminated``: the task ended. ``truncated``: the environment's own limit ended it. ``refused``: the action was
    illegal or malformed and changed nothing. ``success``: whether the task is solved; if ``None``, a task counts as
    solved when it terminates with a total reward of at least 1.
    """

    observation: str
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    refused: bool = False
    success: bool | None = None
    info: Mapping[str, JsonValue] = field(default_factory=dict)
