"""Short tasks, and models whose words are known, for tests of whole episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hiplan.coordination import Limits
from hiplan.envs import make_env
from hiplan.envs.crafting import Crafting
from hiplan.executors import Executor
from hiplan.model import Completion, Model, Request, ScriptedModel
from hiplan.planners import Planner
from hiplan.prompts import BRIEF, Prompts
from hiplan.sampler import Job, Sampler
from hiplan.task import StepResult, Task
from hiplan.trace import Conversation, Episode, Verdict

RECIPES = ["craft 2 plank using 1 log", "craft 1 hinge using 2 iron, 1 tin", "craft 1 door using 4 plank, 1 hinge"]
DOOR = Task(env="crafting", params={"recipes": RECIPES, "goal": "door"})
PLANK = Task(env="crafting", params={"recipes": RECIPES[:1], "goal": "plank"})
CUP = Task(
    env="household", params={"seed": 1, "kind": "clean"}
)  # the cup lies on rack 1 and belongs, clean, into a box
MAKE_DOOR = ["get 2 log", RECIPES[0], RECIPES[0], "get 2 iron", "get 1 tin", RECIPES[1], RECIPES[2]]


def episode_of(
    task: Task,
    planner: Sequence[str] = (),
    executor: Sequence[str] = (),
    prompts: Prompts = BRIEF,
    limits: Limits | None = None,
    make: Any = make_env,
) -> Episode:
    """One episode whose roles say these texts, all of them."""
    texts = {"planner": list(planner), "executor": list(executor)}
    model = ScriptedModel(lambda conversation: texts[conversation.role].pop(0))
    (episode,) = Sampler(model, make, limits=limits or Limits()).run([Job(task, Planner(prompts), Executor(prompts))])
    assert texts == {"planner": [], "executor": []}
    return episode


def verdicts(episode: Episode) -> list[tuple[Verdict | None, int | None]]:
    return [(turn.verdict, turn.step) for turn in episode.turns]


ON, OFF, EARLY, AGAIN = Verdict.ON_PLAN, Verdict.OFF_PLAN, Verdict.PREMATURE, Verdict.REPEATED


class Breaks(Crafting):
    """Its engine fails at the third action."""

    def __init__(self, task: Task, error: Exception | None = None) -> None:
        super().__init__(task)
        self.count, self.closed, self.error = 0, 0, error or OSError("the engine hung up")

    def step(self, action: str) -> StepResult:
        self.count += 1
        if self.count == 3:
            raise self.error
        return super().step(action)

    def close(self) -> None:
        self.closed += 1


class Watched(Model):
    """Answers like a model whose words depend on the conversation alone, and notes what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[Request]] = []

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        self.calls.append(list(requests))
        assert len({request.role for request in requests}) == 1
        return [Completion(self.say(request.conversation)) for request in requests]

    @staticmethod
    def say(conversation: Conversation) -> str:
        if conversation.role == "planner":
            return "1. make door" if conversation.segments[-1].turn == 0 else "keep"
        said = sum(s.author == "assistant" for s in conversation.segments)
        return ["get 4 plank", *MAKE_DOOR][said % 8] if "door" in conversation.segments[1].text else "look"
