"""Playing episodes: ``Sampler`` holds what that takes, and everything that plays episodes is given one.

``run`` advances many episodes at once and answers their requests role by role: those that wait for the same role are
answered by one model call, and the role that most of them wait for goes first. Apps play one episode at a time
(``hiplan.agent``). Both advance the same ``Playing``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from hiplan.coordination import Limits, Matcher, ReplanPolicy, Replayed, adaplan
from hiplan.coordination.matching import best_known
from hiplan.coordination.replan import REPLAN_POLICIES
from hiplan.effects import (
    Act,
    Acted,
    AskAction,
    AskCoverage,
    AskPlan,
    Coverage,
    Effect,
    Effects,
    Generate,
    Outcome,
    PlanReady,
    Reset,
)
from hiplan.env import EnvFactory, Environment, Oracle, PlanAware
from hiplan.errors import EnvironmentFault, HiplanError, UserError
from hiplan.executors import Executor, ExecutorProtocol
from hiplan.model import Completion, Decoding, Model, Request, complete, derive_seed
from hiplan.planners import Planner, PlannerProtocol
from hiplan.task import StepResult, Task
from hiplan.trace import ROLES, Episode, Role, StopReason, printable


@dataclass(frozen=True)
class Job:
    """One episode to play. ``seed`` fixes all sampling in it; ``decoding`` overrides the sampler's.

    ``start``: an episode replayed up to a turn, to be continued instead of a new one.
    """

    task: Task
    planner: PlannerProtocol
    executor: ExecutorProtocol
    seed: int = 0
    decoding: Decoding | None = None
    start: Replayed | None = None


Play = Callable[[Sequence[Job]], list[Episode]]


@dataclass(frozen=True)
class Sampler:
    """What playing episodes takes.

    ``replan``: when the planner is asked to revise. ``matcher``: which steps an action serves. ``share``: has the jobs
    played by several processes (``hiplan.training.processes``). Raises ``UserError`` for what is not a ``Model``.
    """

    model: Model
    make_env: EnvFactory
    decoding: Decoding = field(default_factory=Decoding)
    replan: ReplanPolicy = REPLAN_POLICIES["on_failure"]
    limits: Limits = field(default_factory=Limits)
    matcher: Matcher = best_known
    share: Callable[[Sequence[Job], Play], list[Episode]] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, Model):
            raise UserError(
                f"{type(self.model).__name__!r} is not a model: it needs complete(requests), prompts and release(); "
                "derive it from hiplan.Model, which has defaults for the last two"
            )

    @property
    def planner(self) -> Planner:
        """The language-model planner with the model's own prompts."""
        return Planner(self.model.prompts)

    @property
    def executor(self) -> Executor:
        """The language-model executor with the model's own prompts."""
        return Executor(self.model.prompts)

    def run(self, jobs: Sequence[Job], on_done: Callable[[Episode], None] | None = None) -> list[Episode]:
        """Play all jobs to their end; episodes come back in the jobs' order.

        ``on_done`` is called as each episode ends. A failed episode is recorded with its error and its siblings
        continue. Exceptions raised by the model end the whole rollout.
        """

        def play(mine: Sequence[Job]) -> list[Episode]:
            return self._play(mine, on_done or (lambda episode: None))

        return self.share(jobs, play) if self.share else play(jobs)

    def _play(self, jobs: Sequence[Job], on_done: Callable[[Episode], None]) -> list[Episode]:
        playing = [Playing(self, job) for job in jobs]
        waiting: dict[Playing, Generate] = {}

        def advance(one: Playing, answer: Completion | None) -> None:
            waiting.pop(one, None)
            try:
                effect = one.start() if answer is None else one.advance(answer)
                while effect is not None and not isinstance(effect, Generate):
                    effect = one.advance(None)  # nobody watches: events have no answer
            except Exception:  # in the record; a broken task or engine must not end its siblings
                effect = None
            if effect is None:
                on_done(one.episode)
            else:
                waiting[one] = effect

        try:
            for one in playing:
                advance(one, None)
            while waiting:
                by_role: dict[Role, list[Playing]] = {role: [] for role in ROLES}
                for one in playing:
                    if one in waiting:
                        by_role[waiting[one].conversation.role].append(one)
                batch = by_role[max(ROLES, key=lambda role: len(by_role[role]))]
                requests = [one.request(waiting[one]) for one in batch]
                for one, completion in zip(batch, complete(self.model, requests), strict=True):
                    advance(one, completion)
        finally:  # the model may fail, or a person interrupt
            for one in playing:
                one.close()
        self.model.release()
        return [one.episode for one in playing]


class Playing:
    """One episode under way: its record, its loop and its environment.

    ``start`` and ``advance`` return the next effect that the driver has to answer, a ``Generate`` or an event, and
    ``None`` at the end; the environment answers the others here. What goes wrong is recorded in
    ``episode`` and raised.
    """

    def __init__(self, sampler: Sampler, job: Job) -> None:
        self.sampler, self.job = sampler, job
        self.episode = job.start.episode if job.start else Episode(job.task, "")
        self._env: Environment | None = job.start.env if job.start else None
        self._loop: Effects[Episode] | None = None
        self._asked = sum(len(talk.answers()) for role in ROLES for talk in self.episode.exchanges(role))

    def start(self) -> Effect[Any] | None:
        """Build and reset the environment, and run up to the first effect."""
        job, sampler = self.job, self.sampler
        with self._recorded():
            if self._env is None:
                with engine("building the environment"):
                    self._env = sampler.make_env(job.task)
                self.episode.observation = first_observation(self._env, job.task)
            tracker = job.start.tracker if job.start else None
            self._loop = adaplan(
                self.episode, job.planner, job.executor, sampler.replan, sampler.limits, sampler.matcher, tracker
            )
        return self.advance(None)

    def advance(self, answer: Any) -> Effect[Any] | None:
        """Send the loop the answer to the last effect; the next one."""
        assert self._loop is not None and self._env is not None
        with self._recorded():
            try:
                while not isinstance(effect := self._loop.send(answer), Generate | PlanReady | Acted):
                    answer = answer_locally(effect, self._env)
                return effect
            except StopIteration:
                pass
        self.close()
        return None

    def request(self, effect: Generate) -> Request:
        """What to ask the model; every request of an episode has a seed of its own."""
        self._asked += 1
        conversation, decoding = effect.conversation, self.job.decoding or self.sampler.decoding
        seed = derive_seed(self.job.seed, conversation.role, self._asked)
        return Request(conversation, decoding.at(effect.temperature), seed)

    def end(self, error: BaseException) -> None:
        """Record why the episode ended early, and free its environment; one that has ended stays as it is."""
        if self.episode.stop is None:
            failed = isinstance(error, Exception)  # not so where a person or the event loop cancels
            self.episode.stop = StopReason.FAULT if failed else StopReason.CANCELLED
            self.episode.error = describe(error) if failed else ""
        self.close()

    def close(self) -> None:
        """Free the environment; may be called twice. What was played stays, whatever ``env.close`` raises."""
        env, self._env = self._env, None
        try:
            if env is not None:
                with engine("close"):
                    env.close()
        except HiplanError as error:
            self.episode.error = self.episode.error or describe(error)

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.end(error)
            raise


def describe(error: BaseException) -> str:
    """An error as ``Episode.error`` keeps it."""
    return printable(f"{type(error).__name__}: {error}")


def first_observation(env: Environment, task: Task) -> str:
    """Reset the environment. Raises ``EnvironmentFault`` where it fails."""
    with engine("reset"):
        return printable(_text("reset", env.reset(task)))


@contextmanager
def engine(call: str) -> Iterator[None]:
    """Whatever an environment raises comes out as ``EnvironmentFault``; hiplan's own errors stay what they are."""
    try:
        yield
    except HiplanError:
        raise
    except Exception as error:
        raise EnvironmentFault(f"{call} raised {describe(error)}") from error


def answer_locally(effect: Effect[Any], env: Environment) -> Any:
    """The environment's answer to an effect. Raises ``EnvironmentFault`` where the environment fails."""
    match effect:
        case Act(action, steps):
            return _acted(env, action, steps)
        case Reset(task):
            return first_observation(env, task)
        case AskPlan():
            with engine("oracle_plan"):
                return env.oracle_plan() if isinstance(env, Oracle) else None
        case AskAction(step):
            with engine("oracle_action"):
                return str(env.oracle_action(step)) if isinstance(env, Oracle) else None
        case AskCoverage(steps) if isinstance(env, PlanAware):
            with engine("subgoal_of"):  # a list first: a generator would turn a StopIteration into another error
                return Coverage(env.subgoals(), tuple([env.subgoal_of(step) for step in steps]))
    return None


def _acted(env: Environment, action: str, steps: tuple[str, ...]) -> Outcome:
    aware = env if steps and isinstance(env, PlanAware) else None
    with engine("serves"):
        serves = tuple([aware.serves(step, action) for step in steps]) if aware else None
    with engine(f"step({action[:80]!r})"):
        result = _checked(action, env.step(action))
    with engine("step_status"):
        status = tuple([aware.step_status(step) for step in steps]) if aware else None
    with engine("state_key"):
        return Outcome(result, serves, status, printable(repr(env.state_key())))


def _checked(action: str, result: StepResult) -> StepResult:
    """The result with a printable observation. Raises ``EnvironmentFault`` for what is no result."""
    call = f"step({action[:80]!r})"
    if not isinstance(result, StepResult):
        raise EnvironmentFault(f"{call} returned a {type(result).__name__}, expected a hiplan.StepResult")
    if not (isinstance(result.reward, int | float) and math.isfinite(result.reward)):
        raise EnvironmentFault(f"{call} gave the reward {result.reward!r}; expected a number")
    flags: dict[str, Any] = {}
    for name in ("terminated", "truncated", "refused", "success"):
        value = getattr(result, name)
        if not isinstance(value, int) and not (name == "success" and value is None):  # bool is an int
            raise EnvironmentFault(f"{call} gave {name} {value!r}; expected True or False")
        flags[name] = None if value is None else bool(value)
    observation = printable(_text(call, result.observation))
    return replace(result, observation=observation, reward=float(result.reward), **flags)


def _text(call: str, value: object) -> str:
    if not isinstance(value, str):
        raise EnvironmentFault(f"{call} gave a {type(value).__name__} for an observation, expected text")
    return value
