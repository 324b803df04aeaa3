"""Answers of a judge, and what it is asked, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from hiplan.coordination import Submission
from hiplan.formats import parse_numbered
from hiplan.model import Completion, Request, ScriptedModel
from hiplan.task import Task
from hiplan.trace import Conversation

CHAIN = Task(env="crafting", params={"seed": 0, "depth": 2})


def scores(correctness: float, followability: float = 5, standardisation: float = 5, **more: Any) -> str:
    return json.dumps(
        {"correctness": correctness, "followability": followability, "standardisation": standardisation} | more
    )


def candidate(plan: str = "1. make rod", observation: str = "make a rod", reference: str = "") -> Submission:
    return Submission(CHAIN, observation, parse_numbered(plan), reference)


class Recorder:
    """A scripted model that keeps the conversations it was asked about, as text."""

    def __init__(self, script: Callable[[Conversation], str] | list[str]) -> None:
        self.model = ScriptedModel(script)
        self.asked: list[list[str]] = []  # per call, the conversations' texts
        self.requests: list[Request] = []

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        self.asked.append(["\n".join(s.text for s in r.conversation.segments) for r in requests])
        self.requests += requests
        return self.model.complete(requests)
