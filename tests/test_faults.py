"""What may go wrong in an episode is recorded in it, and its siblings continue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from episodes import CUP, DOOR, MAKE_DOOR, Breaks
from hypothesis import given, settings
from hypothesis import strategies as st

from hiplan.coordination import Limits
from hiplan.envs import make_env
from hiplan.envs.crafting import Crafting
from hiplan.errors import UserError
from hiplan.executors import Executor, OracleExecutor, ScriptedExecutor
from hiplan.model import Completion, Model, Request, ScriptedModel
from hiplan.planners import NoPlanner, OraclePlanner, Planner
from hiplan.prompts import BRIEF, FULL, Prompts
from hiplan.sampler import Job, Sampler
from hiplan.task import StepResult, Task
from hiplan.trace import Episode, StopReason


def played(make: Callable[[Task], Any], task: Task = DOOR) -> Episode:
    """A sound sibling runs beside it, before and after."""
    jobs = [Job(DOOR, OraclePlanner(), OracleExecutor()), Job(task, OraclePlanner(), OracleExecutor())]
    built: list[Any] = []
    alone: list[Episode] = []

    def build(task: Task) -> Any:
        built.append(task)
        return make(task) if len(built) == 2 else make_env(task)

    episodes = Sampler(ScriptedModel([]), build).run([*jobs, jobs[0]], alone.append)
    assert episodes[0].success and episodes[2].success
    assert alone == episodes, "on_done sees every episode, those that fail or ask nothing too"
    return episodes[1]


class Odd(Crafting):
    """Raises ``error`` when ``method`` is called."""

    def __init__(self, task: Task, method: str, error: Exception) -> None:
        self._armed = False
        super().__init__(task)
        setattr(self, method, self._raise)
        self._error = error

    def _raise(self, *arguments: Any) -> Any:
        raise self._error


@pytest.mark.parametrize("error", [RuntimeError("boom"), StopIteration(), AssertionError(), KeyError("x")])
@pytest.mark.parametrize(
    "method", ["reset", "step", "state_key", "serves", "step_status", "oracle_plan", "oracle_action"]
)
def test_whatever_an_environment_raises_is_a_fault_of_the_environment(method: str, error: Exception) -> None:
    episode = played(lambda task: Odd(task, method, error))
    assert episode.stop is StopReason.FAULT and not episode.success
    assert episode.error.startswith(f"EnvironmentFault: {method}")
    assert episode.error.endswith(f"raised {type(error).__name__}: {error}")
    assert Episode.from_json(episode.to_json()).error == episode.error


class Garbled(Crafting):
    """Its texts hold what no file can hold, and its reward may be none."""

    def __init__(self, task: Task, reward: float = 0.0) -> None:
        super().__init__(task)
        self._reward = reward

    def reset(self, task: Task) -> str:
        return super().reset(task) + "\ud800"

    def step(self, action: str) -> StepResult:
        result = super().step(action)
        return StepResult(result.observation + "\udfff", result.reward + self._reward, result.terminated)


def test_texts_that_no_file_can_hold_are_made_printable() -> None:
    episode = played(Garbled)
    assert episode.success and episode.observation.endswith("?")
    assert all(turn.observation.endswith("?") for turn in episode.turns)
    assert Episode.from_json(episode.to_json()).to_json() == episode.to_json()


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_is_a_fault_of_the_environment(reward: float) -> None:
    episode = played(lambda task: Garbled(task, reward))
    assert episode.stop is StopReason.FAULT
    assert (
        episode.error == f"EnvironmentFault: step('get 2 log') returned the reward {reward}; expected a finite number"
    )


def test_a_task_that_cannot_be_built_is_recorded() -> None:
    assert played(make_env, Task(env="crafting")).error == "TaskError: crafting task parameter seed: Field required"

    def refuse(task: Task) -> Any:
        raise OSError("no such engine")

    assert played(refuse).error == "EnvironmentFault: building the environment raised OSError: no such engine"


def test_a_failing_close_takes_nothing_away() -> None:
    episode = played(lambda task: Odd(task, "close", OSError("still in use")))
    assert episode.success and episode.error == "EnvironmentFault: close raised OSError: still in use"


def test_a_broken_role_is_recorded() -> None:
    def bad(episode: Episode, ready: tuple[int, ...]) -> str:
        raise ZeroDivisionError("no action")

    (episode,) = Sampler(ScriptedModel([]), make_env).run([Job(DOOR, NoPlanner(), ScriptedExecutor(bad))])
    assert (episode.stop, episode.error) == (StopReason.FAULT, "ZeroDivisionError: no action")


def test_a_failing_model_closes_all_environments() -> None:
    envs: list[Breaks] = []

    def make(task: Task) -> Breaks:
        envs.append(Breaks(task))
        return envs[-1]

    with pytest.raises(UserError, match="no text left for the executor's prompt"):
        Sampler(ScriptedModel(["1. make door"] * 4), make).run([Job(DOOR, Planner(), Executor())] * 3)
    assert [env.closed for env in envs] == [1, 1, 1]


def test_a_window_that_holds_no_new_beginning_ends_the_episode() -> None:
    class Cramped(Model):
        def complete(self, requests: Sequence[Request]) -> list[Completion]:
            fits = len(requests[0].conversation.segments) < 6 and "> " not in requests[0].conversation.segments[1].text
            return [Completion("get 1 log" if fits else "", finish="stop" if fits else "window")]

    (episode,) = Sampler(Cramped(), make_env).run([Job(DOOR, NoPlanner(), Executor(BRIEF))])
    assert (episode.stop, len(episode.turns)) == (StopReason.WINDOW_FULL, 3)
    (episode,) = Sampler(Cramped(), make_env, limits=Limits(turns=0)).run([Job(DOOR, Planner(BRIEF), Executor(BRIEF))])
    assert episode.stop is StopReason.TURN_LIMIT and not episode.turns


@settings(max_examples=300)
@given(st.lists(st.one_of(st.text(max_size=30), st.sampled_from(
    ["keep", "1. make plank", "2. make door\n1. make plank after 2", "1. a\n2. b after 1", *MAKE_DOOR,
     "go to rack 1", "look", "find cup at rack 1", "1. find cup at rack 1\n2. put cup in box 1 after 1",
     "take cup 1 from rack 1", "Action:"]
)), min_size=1, max_size=25), st.sampled_from([DOOR, CUP]), st.sampled_from([BRIEF, FULL]))  # fmt: skip
def test_whatever_the_roles_write_the_episode_ends_in_order(texts: list[str], task: Task, prompts: Prompts) -> None:
    said = iter(range(10**6))
    model = ScriptedModel(lambda conversation: texts[next(said) % len(texts)])
    (episode,) = Sampler(model, make_env, limits=Limits(turns=12)).run([Job(task, Planner(prompts), Executor(prompts))])
    assert episode.stop is not None and episode.stop is not StopReason.FAULT, episode.error
    assert 1 <= len(episode.turns) <= 12 and episode.plans[0].turn == 0
    assert [turn.index for turn in episode.turns] == list(range(len(episode.turns)))
    assert Episode.from_json(episode.to_json()).to_json() == episode.to_json()
