"""Targets: whole episodes with models and environments that misbehave."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import aclosing
from random import Random
from typing import Any

from attack.core import Target, chance, every
from attack.mutate import KINDS, hostile
from attack.texts import CRAFTING, CUP, DOOR, HOUSEHOLD, PLANS, check_record
from hiplan.agent import Agent
from hiplan.coordination import Limits
from hiplan.env import Environment
from hiplan.envs import make_env
from hiplan.executors import Executor
from hiplan.model import Completion, Model, Request, ScriptedModel
from hiplan.plan import Plan, PlanStep, StepStatus
from hiplan.planners import Planner
from hiplan.prompts import BRIEF, FULL
from hiplan.report import transcript
from hiplan.sampler import Job, Sampler
from hiplan.task import StepResult, Task
from hiplan.trace import Episode

WORDS = (*PLANS, *CRAFTING, *HOUSEHOLD, *KINDS["plans"], *KINDS["turns"], "Action: ")
LIMITS, FEW = Limits(turns=5), Limits(turns=2)


class Broke(Exception):
    """What a broken model or environment raises. From a model it reaches the caller, as documented."""


def run_alone(model: Model, make: Any, task: Task, seed: int = 0) -> Episode:
    episode = Agent(model, make_env=make, limits=LIMITS).run(task, seed)
    check_record(episode)
    assert transcript(episode)
    return episode


def run_async(model: Model, make: Any, task: Task, limits: Limits = LIMITS) -> None:
    async def follow() -> None:
        async with aclosing(Agent(model, make_env=make, limits=limits).astream(task)) as events:
            async for event in events:
                check_record(event.episode)

    asyncio.run(follow())


def run_together(model: Model, make: Any, task: Task) -> None:
    """A failing episode does not affect the other one of its batch."""
    healthy = ScriptedModel(lambda c: "1. make planks" if c.role == "planner" else "get 1 oak log")

    class Both(Model):
        def complete(self, requests: Sequence[Request]) -> list[Completion]:
            return [(healthy if tame(r) else model).complete([r])[0] for r in requests]

    def tame(request: Request) -> bool:
        return "Goal: craft door" in request.conversation.segments[1].text

    jobs = [Job(task, Planner(FULL), Executor(FULL)), Job(DOOR, Planner(FULL), Executor(FULL))]
    bad, good = Sampler(Both(), lambda t: make_env(t) if t is DOOR else make(t), limits=LIMITS).run(jobs)
    assert not good.error and len(good.turns) == LIMITS.turns, "the other episode of the batch was affected"
    for episode in (bad, good):
        check_record(episode)


# -- models -----------------------------------------------------------------------------------


def make_texts(rng: Random) -> str:
    return "\n--\n".join(hostile(rng, WORDS) for _ in range(rng.randint(1, 6)))


def attack_hostile_model(text: str) -> None:
    """A model that writes whatever it likes, in both embedded environments and both styles of prompts."""
    rng, said = chance(text), text.split("\n--\n")
    model = ScriptedModel(lambda conversation: rng.choice(said))
    prompts = rng.choice((BRIEF, FULL))
    agent = Agent(model, Planner(prompts), Executor(prompts), limits=LIMITS)
    episode = agent.run(rng.choice((DOOR, CUP)))
    check_record(episode)
    assert episode.stop is not None and transcript(episode)


class OddModel(Model):
    """Answers with completions that are none, or raises."""

    def __init__(self, text: str) -> None:
        self.rng, self.text = chance(text), text

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        rng, n = self.rng, len(requests)
        if rng.random() < 0.5:
            return [Completion("1. wait\nAction: wait")] * n
        kind = rng.randrange(9)
        if kind == 0:
            raise Broke(self.text)
        if kind == 1:
            raise StopIteration(self.text)
        if kind == 2:
            return []
        if kind == 3:
            return [Completion(rng.choice((None, 3, b"1. win", ["1. win"], object())))] * n  # type: ignore[arg-type]
        if kind == 4:
            return rng.choice((None, [None] * n, ["1. win"] * n, self.text, [{}] * n))  # type: ignore[return-value]
        ids = tuple(rng.choices((0, 1, 7, -1, 2**70), k=3))
        logprobs = tuple(rng.choices((-1.0, 0.0, math.nan, -math.inf, 5.0, None), k=3))
        finish = rng.choice(("stop", "length", "window", "odd", None))
        return [Completion(self.text, ids, logprobs, ids[:2], finish, self.text[::2], kind)] * n  # type: ignore[arg-type]


def attack_odd_model(text: str) -> None:
    make = Told(text, calm=1.0)
    every(
        lambda: run_alone(OddModel(text), make, CUP),
        lambda: run_async(OddModel(text), make, CUP),
        lambda: Sampler(OddModel(text), make, limits=LIMITS).run([Job(CUP, Planner(FULL), Executor(FULL))]),
    )


# -- environments -----------------------------------------------------------------------------


class OddState:
    """A state that cannot be shown."""

    def __init__(self, rng: Random) -> None:
        self.how = rng.randrange(3)

    def __repr__(self) -> str:
        if self.how == 0:
            raise Broke("no repr")
        return "\ud800\x1b[31m" if self.how == 1 else "x" * 100_000


class OddWorld:
    """An environment whose every answer may be of a wrong type or an exception; ``calm``: how often it is neither."""

    def __init__(self, text: str, calm: float) -> None:
        self.rng, self.text, self.calm = chance(text), text, calm
        self.left = self.rng.randint(1, 9)

    def _odd(self, plain: Any, *odd: Any) -> Any:
        """The plain answer, one of a wrong type, or an exception."""
        if self.rng.random() < self.calm:
            return plain
        if self.rng.random() < 0.4:
            error = self.rng.choice(
                (Broke, StopIteration, RecursionError, MemoryError, KeyError, UnicodeError, OSError)
            )
            raise error(self.text[:300])
        return self.rng.choice((*odd, None, 3, b"bytes", [], {}, object(), self.text))

    def reset(self, task: Task) -> str:
        return self._odd(self.text)  # type: ignore[no-any-return]

    def step(self, action: str) -> StepResult:
        self.left -= 1
        reward = self._odd(0.0, math.nan, math.inf, "1", True, 2**80)
        refused, ended = self._odd(False, "yes"), self._odd(self.left < 1, "no")
        success, info = self._odd(None, True, 1, "yes", math.nan), self._odd({}, {"a": object()})
        result = StepResult(self._odd(self.text), reward, ended, self._odd(False), refused, success, info)
        return self._odd(result, (result, 0.0), {"observation": "x"})  # type: ignore[no-any-return]

    def state_key(self) -> Any:
        return self._odd(self.left, OddState(self.rng), "\udfff", {"a"}, math.nan)

    def close(self) -> None:
        self._odd(None)

    def oracle_plan(self) -> Plan:
        return self._odd(Plan(steps=(PlanStep(id=1, description="wait"),)))  # type: ignore[no-any-return]

    def oracle_action(self, step: str | None) -> str:
        return self._odd("wait")  # type: ignore[no-any-return]

    def subgoals(self) -> Any:
        return self._odd({"wait": ()}, {"wait": ("missing",)}, {"wait": 3})

    def subgoal_of(self, step: str) -> Any:
        return self._odd("wait")

    def step_status(self, step: str) -> Any:
        return self._odd(StepStatus.OPEN, "done", "nothing", StepStatus.FAILED)

    def serves(self, step: str, action: str) -> Any:
        return self._odd(True, "no", math.nan)


class Told:
    """Builds the same odd environment each time."""

    def __init__(self, text: str, calm: float) -> None:
        self.text, self.calm = text, calm

    def __call__(self, task: Task) -> Environment:
        return OddWorld(self.text, self.calm)


def attack_odd_world(text: str) -> None:
    """A failing environment ends its own episode only, and the record of it is whole."""
    model = ScriptedModel(lambda c: "1. wait\n2. go after 1" if c.role == "planner" else "Action: wait")
    make = Told(text, calm=0.9)
    every(
        lambda: run_alone(model, make, CUP),
        lambda: run_async(model, make, CUP),
        lambda: run_together(model, make, CUP),
    )


# -- long observations ------------------------------------------------------------------------


def make_long(rng: Random) -> str:
    piece = rng.choice(("x", "make planks ", "\n", "ab\n", "\U0001f600 ", hostile(rng) or "y"))
    return piece * (rng.choice((10**6, 2 * 10**6, 5 * 10**6)) // len(piece))


def attack_long(text: str) -> None:
    """Very long observations and answers.

    Not covered yet: observations of 20 MB and more, which take time in proportion, millions of empty lines the
    longest; how long the driver of ``Agent.astream`` blocks the event loop while it works on a long one; and a step
    that never returns, for which the library has no time limit.
    """
    turn = iter(range(10))
    model = ScriptedModel(lambda c: "1. make planks\n2. wait" if c.role == "planner" else "Action: wait")
    check_record(Agent(model, make_env=Told(text, calm=1.0), limits=FEW).run(CUP))
    run_async(model, Told(text, calm=1.0), CUP, FEW)
    shout = ScriptedModel(lambda c: text[: 10**6] if next(turn) == 1 else "Action: look")
    Agent(shout, limits=FEW).run(CUP)


TARGETS = (
    Target("episode, hostile model", make_texts, attack_hostile_model, 25_000, 2.0),
    Target("episode, odd model", make_texts, attack_odd_model, 6_000, 5.0, (Broke,)),
    Target("episode, odd environment", make_texts, attack_odd_world, 8_000, 5.0),
    Target("episode, long texts", make_long, attack_long, 150, 400.0),
)
