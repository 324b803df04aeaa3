"""The drivers for apps: one episode at a time, synchronous or asynchronous, as a stream of typed events.

Both play episodes as training does (``hiplan.sampler``).
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from hiplan.coordination import Candidates, Limits, Matcher, ReplanPolicy
from hiplan.coordination.candidates import first
from hiplan.coordination.matching import best_known
from hiplan.coordination.replan import REPLAN_POLICIES
from hiplan.effects import Acted, Generate, PlanReady
from hiplan.env import EnvFactory
from hiplan.errors import UserError
from hiplan.executors import ExecutorProtocol
from hiplan.model import Decoding, Model, complete
from hiplan.plan import Plan
from hiplan.planners import PlannerProtocol
from hiplan.sampler import Job, Playing, Sampler
from hiplan.task import Task
from hiplan.trace import Episode

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

    @property
    def sampler(self) -> Sampler:
        """What plays the agent's episodes; evaluation takes it, too."""
        from hiplan.envs import make_env

        return Sampler(
            self.model, self.make_env or make_env, self.decoding, self.replan or REPLAN_POLICIES["on_failure"],
            self.limits or Limits(), self.matcher,
        )  # fmt: skip

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
        planner = Candidates(self.planner or self.sampler.planner, n, first, temperature)
        episode = replace(self, planner=planner, limits=Limits(turns=0), approve=None).run(task, seed)
        return [candidate.plan for candidate in episode.candidates if candidate.plan and candidate.score is not None]

    def stream(self, task: Task, seed: int = 0) -> Stream:
        """Events as they happen; afterwards, also after an error, ``stream.episode`` holds the record."""
        return Stream(self, task, seed)

    async def astream(self, task: Task, seed: int = 0) -> AsyncIterator[Event]:
        """Events as they happen, without blocking the event loop: model and environment run in threads.

        Leaving the iteration early cancels the episode and closes its environment. Every event holds the episode.
        """
        playing = self._playing(task, seed)
        try:
            effect = await _in_thread(playing.start)
            while effect is not None:
                answer: Any = None
                if isinstance(effect, Generate):
                    request = playing.request(effect)
                    (answer,) = await asyncio.to_thread(complete, self.model, [request])
                elif isinstance(effect, PlanReady | Acted):
                    yield effect
                    answer = self._approved(effect)
                    if inspect.isawaitable(answer):
                        answer = await answer
                effect = await _in_thread(playing.advance, answer)
        except BaseException as error:
            playing.end(error)
            raise

    def _playing(self, task: Task, seed: int) -> Playing:
        sampler = self.sampler
        return Playing(sampler, Job(task, self.planner or sampler.planner, self.executor or sampler.executor, seed))

    def _approved(self, event: Event) -> Plan | Awaitable[Plan | None] | None:
        return self.approve(event) if self.approve and isinstance(event, PlanReady) else None


class Stream:
    """Iterates over an episode's events; ``episode`` is its record so far."""

    def __init__(self, agent: Agent, task: Task, seed: int) -> None:
        self._agent = agent
        self._playing = agent._playing(task, seed)
        self._events = self._play()

    @property
    def episode(self) -> Episode:
        """The record so far."""
        return self._playing.episode

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def close(self) -> None:
        """Cancel the episode and close its environment."""
        self._events.close()
        self._playing.end(GeneratorExit())

    def _play(self) -> Generator[Event, None, None]:
        agent, playing = self._agent, self._playing
        try:
            effect = playing.start()
            while effect is not None:
                answer: Any = None
                if isinstance(effect, Generate):
                    (answer,) = complete(agent.model, [playing.request(effect)])
                elif isinstance(effect, PlanReady | Acted):
                    yield effect
                    answer = agent._approved(effect)
                    if inspect.iscoroutine(answer):
                        answer.close()
                        raise UserError("approve is a coroutine function, which only astream awaits; use a plain one")
                effect = playing.advance(answer)
        except BaseException as error:
            playing.end(error)
            raise


async def _in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """Like ``asyncio.to_thread``, but a cancelled call is waited for: an environment in use must not be closed."""
    context = contextvars.copy_context()
    work = asyncio.get_running_loop().run_in_executor(None, lambda: context.run(call, *arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
