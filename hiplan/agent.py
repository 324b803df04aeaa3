"""The drivers for apps: one episode at a time, synchronous or asynchronous, as a stream of typed events.

Both run the very loop that training runs (``hiplan.coordination.adaplan``).
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from hiplan.coordination import Candidates, Limits, Matcher, ReplanPolicy, adaplan
from hiplan.coordination.candidates import first
from hiplan.coordination.matching import best_known
from hiplan.effects import Acted, Effect, Generate, PlanReady
from hiplan.env import EnvFactory, Environment
from hiplan.errors import UserError
from hiplan.executors import Executor, ExecutorProtocol
from hiplan.model import Decoding, Model, Request, derive_seed
from hiplan.plan import Plan
from hiplan.planners import Planner, PlannerProtocol
from hiplan.prompts import FULL
from hiplan.sampler import answer_locally, describe, engine, first_observation
from hiplan.task import Task
from hiplan.trace import Episode, StopReason

Event = PlanReady | Acted
T = TypeVar("T")
Approve = Callable[[PlanReady], Plan | Awaitable[Plan | None] | None]


@dataclass
class Agent:
    """A planner and an executor on one model.

    ``planner`` and ``executor`` default to language-model roles with the model's own prompts. ``make_env``
    builds the environment of a task; default: hiplan's embedded ones. ``approve`` sees every plan before it
    takes effect and may return another one to use instead (in ``astream`` it may be a coroutine function).
    ``replan``: when to ask for a revision. ``matcher``: which steps an action serves.
    """

    model: Model
    planner: PlannerProtocol | None = None
    executor: ExecutorProtocol | None = None
    make_env: EnvFactory | None = None
    decoding: Decoding = field(default_factory=lambda: Decoding(temperature=0.0))
    replan: ReplanPolicy | None = None
    limits: Limits | None = None
    approve: Approve | None = None
    matcher: Matcher = best_known

    def run(self, task: Task, seed: int = 0) -> Episode:
        """Play one task to its end.

        Raises ``TaskError`` for a task that cannot be built, ``EnvironmentFault`` where the environment fails.
        """
        for event in (stream := self.stream(task, seed)):
            del event
        return stream.episode

    def plan(self, task: Task, n: int = 1, seed: int = 0, temperature: float | None = None) -> list[Plan]:
        """First plans for the task without acting: at most ``n`` different ones, as many as could be read.

        ``temperature``: default the agent's own, but 1 where that is greedy and several plans are asked for.
        """
        if temperature is None and n > 1:
            temperature = self.decoding.temperature or 1.0
        planner = Candidates(self.planner or Planner(getattr(self.model, "prompts", FULL)), n, first, temperature)
        episode = replace(self, planner=planner, limits=Limits(turns=0), approve=None).run(task, seed)
        return [candidate.plan for candidate in episode.candidates if candidate.plan and candidate.score is not None]

    def stream(self, task: Task, seed: int = 0) -> Stream:
        """Events as they happen; afterwards, also after an error, ``stream.episode`` holds the record."""
        return Stream(self, task, seed)

    async def astream(self, task: Task, seed: int = 0) -> AsyncIterator[Event]:
        """Events as they happen, without blocking the event loop: model and environment run in threads.

        Leaving the iteration early cancels the episode and closes its environment. Every event holds the episode.
        """
        env, episode = self._env(task), Episode(task, "")
        try:
            loop = self._loop(task, await _in_thread(first_observation, env, task))
            asked = 0
            answer: Any = None
            while True:
                try:
                    ask = loop.send(answer)
                except StopIteration:
                    return
                answer = None
                if isinstance(ask, Generate):
                    asked += 1
                    request = self._request(ask, seed, asked)
                    answer = (await asyncio.to_thread(self.model.complete, [request]))[0]
                elif isinstance(ask, PlanReady | Acted):
                    episode = ask.episode
                    yield ask
                    answer = self._approved(ask)
                    if inspect.isawaitable(answer):
                        answer = await answer
                else:
                    answer = await _in_thread(answer_locally, ask, env)
        except BaseException as error:
            _ended_by(error, episode)
            raise
        finally:
            env.close()

    def _env(self, task: Task) -> Environment:
        from hiplan.envs import make_env

        with engine("building the environment"):
            return (self.make_env or make_env)(task)

    def _loop(self, task: Task, observation: str) -> Generator[Effect, Any, Episode]:
        prompts = getattr(self.model, "prompts", FULL)
        planner, executor = self.planner or Planner(prompts), self.executor or Executor(prompts)
        return adaplan(task, observation, planner, executor, self.replan, self.limits, self.matcher)

    def _request(self, ask: Generate, seed: int, asked: int) -> Request:
        return Request(
            ask.conversation, self.decoding.at(ask.temperature), derive_seed(seed, ask.conversation.role, asked)
        )

    def _approved(self, event: Event) -> Plan | Awaitable[Plan | None] | None:
        return self.approve(event) if self.approve and isinstance(event, PlanReady) else None


class Stream:
    """Iterates over an episode's events; ``episode`` is its record so far."""

    def __init__(self, agent: Agent, task: Task, seed: int) -> None:
        self._agent, self._seed = agent, seed
        self.episode = Episode(task, "")
        self._events = self._play()

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def close(self) -> None:
        """Cancel the episode and close its environment."""
        self._events.close()
        _ended_by(GeneratorExit(), self.episode)

    def _play(self) -> Generator[Event, None, None]:
        agent, task = self._agent, self.episode.task
        env = agent._env(task)
        try:
            loop = agent._loop(task, first_observation(env, task))
            asked = 0
            answer: Any = None
            while True:
                try:
                    ask = loop.send(answer)
                except StopIteration as stop:
                    self.episode = stop.value
                    return
                answer = None
                if isinstance(ask, Generate):
                    asked += 1
                    answer = agent.model.complete([agent._request(ask, self._seed, asked)])[0]
                elif isinstance(ask, PlanReady | Acted):
                    self.episode = ask.episode
                    yield ask
                    answer = agent._approved(ask)
                    if inspect.iscoroutine(answer):
                        answer.close()
                        raise UserError("approve is a coroutine function, which only astream awaits; use a plain one")
                else:
                    answer = answer_locally(ask, env)
        except BaseException as error:
            _ended_by(error, self.episode)
            raise
        finally:
            env.close()


def _ended_by(error: BaseException, episode: Episode) -> None:
    """Record why an episode broke off; one that had ended stays as it is."""
    if episode.stop is None:
        failed = isinstance(error, Exception)  # not so where a person or the event loop cancels
        episode.stop = StopReason.FAULT if failed else StopReason.CANCELLED
        episode.error = describe(error) if failed else ""


async def _in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """Like ``asyncio.to_thread``, but a cancelled call is waited for: nobody may close an environment in use."""
    context = contextvars.copy_context()
    work = asyncio.get_running_loop().run_in_executor(None, lambda: context.run(call, *arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
