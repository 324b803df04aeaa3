"""``Agent`` runs one episode at a time for an app, synchronously or asynchronously, as a stream of typed events.

Training plays its episodes with the same loop (``hiplan.sampler``).
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
from hiplan.sampler import EpisodeRunner, Job, Sampler
from hiplan.task import Task
from hiplan.trace import Episode

Event = PlanReady | Acted
T = TypeVar("T")
Approve = Callable[[PlanReady], Plan | Awaitable[Plan | None] | None]


@dataclass
class Agent:
    """A planner and an executor that share one model.

    ``planner`` and ``executor`` default to language-model roles with the model's own prompts. ``make_env`` builds the
    environment of a task; the default builds hiplan's embedded environments. ``approve`` is called with every plan
    before it takes effect and may return a plan to use instead; ``astream`` also accepts a coroutine function.
    ``replan`` decides when to ask for a revision. ``matcher`` decides which steps an action serves.
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
        """The sampler with this agent's settings, for ``hiplan.evaluation``."""
        from hiplan.envs import make_env

        return Sampler(
            self.model, self.make_env or make_env, self.decoding, self.replan or REPLAN_POLICIES["on_failure"],
            self.limits or Limits(), self.matcher,
        )  # fmt: skip

    def run(self, task: Task, seed: int = 0) -> Episode:
        """Run one task to its end and return the record.

        Raises ``TaskError`` if the task cannot be built and ``EnvironmentFault`` if the environment fails.
        """
        for event in (stream := self.stream(task, seed)):
            del event
        return stream.episode

    def plan(self, task: Task, n: int = 1, seed: int = 0, temperature: float | None = None) -> list[Plan]:
        """Sample ``n`` first plans for the task without acting; returns the different ones that parsed.

        ``temperature`` defaults to the agent's own, or to 1 if the agent is greedy and ``n`` is above 1.
        """
        if temperature is None and n > 1:
            temperature = self.decoding.temperature or 1.0
        planner = Candidates(self.planner or self.sampler.planner, n, first, temperature)
        episode = replace(self, planner=planner, limits=Limits(turns=0), approve=None).run(task, seed)
        return [candidate.plan for candidate in episode.candidates if candidate.plan and candidate.score is not None]

    def stream(self, task: Task, seed: int = 0) -> Stream:
        """Run one task and iterate over its events; ``stream.episode`` is the record, also after an error."""
        return Stream(self, task, seed)

    async def astream(self, task: Task, seed: int = 0) -> AsyncIterator[Event]:
        """Like ``stream`` without blocking the event loop: the model and the environment run in threads.

        Stopping the iteration early cancels the episode and closes its environment. Every event carries the episode.
        """
        runner = self._runner(task, seed)
        try:
            effect = await _in_thread(runner.start)
            while effect is not None:
                answer: Any = None
                if isinstance(effect, Generate):
                    request = runner.request(effect)
                    (answer,) = await asyncio.to_thread(complete, self.model, [request])
                elif isinstance(effect, PlanReady | Acted):
                    yield effect
                    answer = self._approved(effect)
                    if inspect.isawaitable(answer):
                        answer = await answer
                effect = await _in_thread(runner.advance, answer)
        except BaseException as error:
            runner.end(error)
            raise

    def _runner(self, task: Task, seed: int) -> EpisodeRunner:
        sampler = self.sampler
        return EpisodeRunner(
            sampler, Job(task, self.planner or sampler.planner, self.executor or sampler.executor, seed)
        )

    def _approved(self, event: Event) -> Plan | Awaitable[Plan | None] | None:
        return self.approve(event) if self.approve and isinstance(event, PlanReady) else None


class Stream:
    """An iterator over the events of one episode."""

    def __init__(self, agent: Agent, task: Task, seed: int) -> None:
        self._agent = agent
        self._runner = agent._runner(task, seed)
        self._events = self._play()

    @property
    def episode(self) -> Episode:
        """The record of the episode so far."""
        return self._runner.episode

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def close(self) -> None:
        """Cancel the episode and close its environment."""
        self._events.close()
        self._runner.end(GeneratorExit())

    def _play(self) -> Generator[Event, None, None]:
        agent, runner = self._agent, self._runner
        try:
            effect = runner.start()
            while effect is not None:
                answer: Any = None
                if isinstance(effect, Generate):
                    (answer,) = complete(agent.model, [runner.request(effect)])
                elif isinstance(effect, PlanReady | Acted):
                    yield effect
                    answer = agent._approved(effect)
                    if inspect.iscoroutine(answer):
                        answer.close()
                        raise UserError(
                            "approve is a coroutine function, which only astream awaits; pass a plain function, or use "
                            "astream"
                        )
                effect = runner.advance(answer)
        except BaseException as error:
            runner.end(error)
            raise


async def _in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """Like ``asyncio.to_thread``, but wait for a cancelled call: closing an environment during a call is unsafe."""
    context = contextvars.copy_context()
    work = asyncio.get_running_loop().run_in_executor(None, lambda: context.run(call, *arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
