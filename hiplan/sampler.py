"""``Sampler`` plays episodes: it holds the model, the environments, the replan policy, the limits and the decoding.

``Sampler.run`` plays many episodes in one batch. Each model call answers all pending requests of one role, and the role
with the most pending requests goes first. ``hiplan.agent`` plays one episode at a time. Both use ``EpisodeRunner``.
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
from hiplan.text import shown
from hiplan.trace import ROLES, Episode, Role, StopReason, printable


@dataclass(frozen=True)
class Job:
    """One episode to play.

    ``seed`` determines all sampling in the episode. ``decoding`` overrides the sampler's. ``start`` continues a
    replayed episode instead of starting a new one.
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
    """Everything needed to play episodes.

    ``replan`` decides when to ask the planner for a revision. ``matcher`` decides which steps an action serves.
    ``share`` distributes jobs over several processes (``hiplan.training.processes``). Raises ``UserError`` if ``model``
    is not a ``Model``.
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
                f"{type(self.model).__name__!r} is not a model; expected a class with complete(requests), prompts and "
                "release(); derive it from hiplan.Model, which has defaults for the last two"
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
        """Play all jobs to their end and return the episodes in the order of the jobs.

        ``on_done`` is called as each episode ends. An error ends its own episode and is recorded there; the other
        episodes continue. An exception raised by the model aborts the whole rollout.
        """

        def play(mine: Sequence[Job]) -> list[Episode]:
            return self._play(mine, on_done or (lambda episode: None))

        return self.share(jobs, play) if self.share else play(jobs)

    def _play(self, jobs: Sequence[Job], on_done: Callable[[Episode], None]) -> list[Episode]:
        runners = [EpisodeRunner(self, job) for job in jobs]
        waiting: dict[EpisodeRunner, Generate] = {}

        def advance(runner: EpisodeRunner, answer: Completion | None) -> None:
            waiting.pop(runner, None)
            try:
                effect = runner.start() if answer is None else runner.advance(answer)
                while effect is not None and not isinstance(effect, Generate):
                    effect = runner.advance(None)  # no one handles events here
            except Exception:  # recorded in the episode; the other episodes continue
                effect = None
            if effect is None:
                on_done(runner.episode)
            else:
                waiting[runner] = effect

        try:
            for runner in runners:
                advance(runner, None)
            while waiting:
                by_role: dict[Role, list[EpisodeRunner]] = {role: [] for role in ROLES}
                for runner in runners:
                    if runner in waiting:
                        by_role[waiting[runner].conversation.role].append(runner)
                batch = by_role[max(ROLES, key=lambda role: len(by_role[role]))]
                requests = [runner.request(waiting[runner]) for runner in batch]
                for runner, completion in zip(batch, complete(self.model, requests), strict=True):
                    advance(runner, completion)
        finally:  # also if the model fails or the user interrupts
            for runner in runners:
                runner.close()
        self.model.release()
        return [runner.episode for runner in runners]


class EpisodeRunner:
    """Runs the loop of one episode against its environment; ``episode`` is the record.

    ``start`` and ``advance`` return the next effect that the caller has to answer, a ``Generate`` or an event, and
    ``None`` at the end. The runner itself answers the effects that concern the environment. Errors are recorded in
    ``episode`` and raised.
    """

    def __init__(self, sampler: Sampler, job: Job) -> None:
        self.sampler, self.job = sampler, job
        self.episode = job.start.episode if job.start else Episode(job.task, "")
        self._env: Environment | None = job.start.env if job.start else None
        self._loop: Effects[Episode] | None = None
        self._asked = sum(len(talk.answers()) for role in ROLES for talk in self.episode.exchanges(role))

    def start(self) -> Effect[Any] | None:
        """Build and reset the environment, then run up to the first effect for the caller."""
        job, sampler = self.job, self.sampler
        with self._recorded():
            if self._env is None:
                with environment_call("building the environment"):
                    self._env = sampler.make_env(job.task)
                self.episode.observation = first_observation(self._env, job.task)
            tracker = job.start.tracker if job.start else None
            self._loop = adaplan(
                self.episode, job.planner, job.executor, sampler.replan, sampler.limits, sampler.matcher, tracker
            )
        return self.advance(None)

    def advance(self, answer: Any) -> Effect[Any] | None:
        """Send the answer to the last effect and return the next effect for the caller."""
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
        """The model request for an effect; every request of an episode has its own seed."""
        self._asked += 1
        conversation, decoding = effect.conversation, self.job.decoding or self.sampler.decoding
        seed = derive_seed(self.job.seed, conversation.role, self._asked)
        return Request(conversation, decoding.at(effect.temperature), seed)

    def end(self, error: BaseException) -> None:
        """Record why the episode ended early and close its environment; no effect on an episode that has ended."""
        if self.episode.stop is None:
            failed = isinstance(error, Exception)  # false for a cancellation by the user or the event loop
            self.episode.stop = StopReason.FAULT if failed else StopReason.CANCELLED
            self.episode.error = error_text(error) if failed else ""
        self.close()

    def close(self) -> None:
        """Close the environment; may be called twice. An error in ``env.close`` is recorded, not raised."""
        env, self._env = self._env, None
        try:
            if env is not None:
                with environment_call("close"):
                    env.close()
        except HiplanError as error:
            self.episode.error = self.episode.error or error_text(error)

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.end(error)
            raise


def error_text(error: BaseException) -> str:
    """An error as the text of ``Episode.error``."""
    return printable(f"{type(error).__name__}: {error}")


def first_observation(env: Environment, task: Task) -> str:
    """Reset the environment and return its first observation. Raises ``EnvironmentFault`` if that fails."""
    with environment_call("reset"):
        return printable(_text("reset", env.reset(task)))


@contextmanager
def environment_call(call: str) -> Iterator[None]:
    """Convert exceptions of an environment to ``EnvironmentFault``; hiplan's own errors pass unchanged."""
    try:
        yield
    except HiplanError:
        raise
    except Exception as error:
        raise EnvironmentFault(f"{call} raised {error_text(error)}") from error


def answer_locally(effect: Effect[Any], env: Environment) -> Any:
    """The environment's answer to an effect. Raises ``EnvironmentFault`` if the environment fails."""
    match effect:
        case Act(action, steps):
            return _acted(env, action, steps)
        case Reset(task):
            return first_observation(env, task)
        case AskPlan():
            with environment_call("oracle_plan"):
                return env.oracle_plan() if isinstance(env, Oracle) else None
        case AskAction(step):
            with environment_call("oracle_action"):
                return str(env.oracle_action(step)) if isinstance(env, Oracle) else None
        case AskCoverage(steps) if isinstance(env, PlanAware):
            with environment_call("subgoal_of"):  # a list: a generator would turn a StopIteration into a RuntimeError
                return Coverage(env.subgoals(), tuple([env.subgoal_of(step) for step in steps]))
    return None


def _acted(env: Environment, action: str, steps: tuple[str, ...]) -> Outcome:
    aware = env if steps and isinstance(env, PlanAware) else None
    with environment_call("serves"):
        serves = tuple([aware.serves(step, action) for step in steps]) if aware else None
    with environment_call(f"step({action[:80]!r})"):
        result = _checked(action, env.step(action))
    with environment_call("step_status"):
        status = tuple([aware.step_status(step) for step in steps]) if aware else None
    with environment_call("state_key"):
        return Outcome(result, serves, status, printable(repr(env.state_key())))


def _checked(action: str, result: StepResult) -> StepResult:
    """The result with a printable observation. Raises ``EnvironmentFault`` if it is not a valid ``StepResult``."""
    call = f"step({action[:80]!r})"
    if not isinstance(result, StepResult):
        raise EnvironmentFault(f"{call} returned a {type(result).__name__}; expected a hiplan.StepResult")
    if not (isinstance(result.reward, int | float) and math.isfinite(result.reward)):
        raise EnvironmentFault(f"{call} returned the reward {result.reward!r}; expected a finite number")
    flags: dict[str, Any] = {}
    for name in ("terminated", "truncated", "refused", "success"):
        value = getattr(result, name)
        if not isinstance(value, int) and not (name == "success" and value is None):  # bool is an int
            raise EnvironmentFault(f"{call} returned {name}={value!r}; expected True or False")
        flags[name] = None if value is None else bool(value)
    observation = printable(_text(call, result.observation))
    return replace(result, observation=observation, reward=float(result.reward), **flags)


def _text(call: str, value: object) -> str:
    if not isinstance(value, str):
        raise EnvironmentFault(f"{call} returned the observation {shown(value)}; expected a str")
    return value
