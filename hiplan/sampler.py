"""The batched driver: advances many episodes at once and answers their requests role by role.

All episodes run the same loop as apps do. Those that wait for the same role are answered by one model
call; the role that most of them wait for goes first. A failed episode is recorded with its
error, its siblings go on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from hiplan.coordination import Limits, ReplanPolicy, adaplan
from hiplan.effects import Act, Consult, Effect, Generate, Reset
from hiplan.env import EnvFactory, Environment, Oracle, PlanAware
from hiplan.errors import EnvironmentFault, HiplanError
from hiplan.executors import ExecutorProtocol
from hiplan.model import Completion, Decoding, Model, Request, derive_seed
from hiplan.planners import PlannerProtocol
from hiplan.task import Task
from hiplan.trace import ROLES, Episode, Role, StopReason, printable


@dataclass(frozen=True)
class Job:
    """One episode to run. ``seed`` fixes all sampling in it; ``decoding`` overrides the rollout's."""

    task: Task
    planner: PlannerProtocol
    executor: ExecutorProtocol
    seed: int = 0
    decoding: Decoding | None = None


def rollout(
    jobs: Sequence[Job],
    model: Model,
    make_env: EnvFactory,
    decoding: Decoding | None = None,
    replan: ReplanPolicy | None = None,
    limits: Limits | None = None,
    on_done: Callable[[Episode], None] | None = None,
) -> list[Episode]:
    """Run all jobs to their end; episodes come back in the jobs' order.

    ``on_done`` is called as each episode ends. What ``model`` raises ends the whole rollout: it is nobody's episode.
    """
    decoding = decoding or Decoding()
    running = [_Running(job, make_env, replan, limits) for job in jobs]
    try:
        for one in running:
            one.start()
            if one.wants is None and on_done:
                on_done(one.episode)
        while waiting := [one for one in running if one.wants is not None]:
            by_role = {role: [one for one in waiting if one.role == role] for role in ROLES}
            role = max(ROLES, key=lambda r: len(by_role[r]))
            batch = by_role[role]
            requests = [one.request(decoding) for one in batch]
            for one, completion in zip(batch, model.complete(requests), strict=True):
                one.advance(completion)
                if one.wants is None and on_done:
                    on_done(one.episode)
    finally:  # the model may fail, or a person interrupt
        for one in running:
            one.close()
    if hasattr(model, "release"):  # caches of episodes that are over
        model.release()
    return [one.episode for one in running]


class _Running:
    """One episode under way: its loop, its environment, and the prompt it waits on."""

    def __init__(self, job: Job, make_env: EnvFactory, replan: ReplanPolicy | None, limits: Limits | None) -> None:
        self.job, self._make, self._replan, self._limits = job, make_env, replan, limits
        self.wants: Generate | None = None
        self.asked = 0
        self.episode = Episode(job.task, "")
        self._env: Environment | None = None
        self._loop: Generator[Effect, Any, Episode] | None = None

    @property
    def role(self) -> Role | None:
        return self.wants.conversation.role if self.wants else None

    def request(self, decoding: Decoding) -> Request:
        assert self.wants is not None
        self.asked += 1
        seed = derive_seed(self.job.seed, self.wants.conversation.role, self.asked)
        return Request(self.wants.conversation, (self.job.decoding or decoding).at(self.wants.temperature), seed)

    def start(self) -> None:
        try:
            with engine("building the environment"):
                self._env = self._make(self.job.task)
            observation = first_observation(self._env, self.job.task)
        except Exception as error:  # a broken task or engine must not take its siblings down
            self._fail(error)
            return
        job = self.job
        self._loop = adaplan(job.task, observation, job.planner, job.executor, self._replan, self._limits)
        self.advance(None)

    def advance(self, answer: Completion | None) -> None:
        """Feed the loop until it needs the model or ends."""
        assert self._loop is not None and self._env is not None
        reply: Any = answer
        self.wants = None
        try:
            while True:
                ask = self._loop.send(reply)
                if hasattr(ask, "episode"):
                    self.episode = ask.episode
                if isinstance(ask, Generate):
                    self.wants = ask
                    return
                reply = answer_locally(ask, self._env)
        except StopIteration as stop:
            self.episode = stop.value
            self.close()
        except Exception as error:
            self._fail(error)

    def close(self) -> None:
        """Free the environment; may be called twice."""
        env, self._env = self._env, None
        try:
            if env is not None:
                with engine("close"):
                    env.close()
        except EnvironmentFault as error:  # what was played stands
            self.episode.error = self.episode.error or describe(error)

    def _fail(self, error: Exception) -> None:
        self.wants = None
        self.episode.stop = StopReason.FAULT
        self.episode.error = describe(error)
        self.close()


def describe(error: BaseException) -> str:
    """An error as ``Episode.error`` keeps it."""
    return printable(f"{type(error).__name__}: {error}")


def first_observation(env: Environment, task: Task) -> str:
    """Reset the environment. Raises ``EnvironmentFault`` where it fails."""
    with engine("reset"):
        return printable(env.reset(task))


@contextmanager
def engine(call: str) -> Iterator[None]:
    """Whatever an environment raises comes out as ``EnvironmentFault``; hiplan's own errors stay what they are."""
    try:
        yield
    except HiplanError:
        raise
    except Exception as error:
        raise EnvironmentFault(f"{call} raised {describe(error)}") from error


def answer_locally(ask: Effect, env: Environment) -> Any:
    """Answer everything but ``Generate`` from the environment; events get ``None``.

    Raises ``EnvironmentFault`` where the environment fails.
    """
    if isinstance(ask, Act):
        with engine(f"step({ask.action[:80]!r})"):
            result = env.step(ask.action)
            if not math.isfinite(result.reward):
                raise EnvironmentFault(f"step({ask.action[:80]!r}) gave the reward {result.reward}; expected a number")
            return replace(result, observation=printable(result.observation))
    if isinstance(ask, Reset):
        return first_observation(env, ask.task)
    if isinstance(ask, Consult):
        capable = {
            "oracle_plan": Oracle,
            "oracle_action": Oracle,
            "subgoals": PlanAware,
            "subgoal_of": PlanAware,
            "serves": PlanAware,
            "step_status": PlanAware,
            "state_key": Environment,
        }[ask.question]
        if not isinstance(env, capable):
            return None
        with engine(ask.question):
            method = getattr(env, ask.question)
            return [method(*arguments) for arguments in ask.arguments]
    return None
