"""An episode rebuilt at any of its turns is what it was then, and continues to the same end."""

from pathlib import Path
from typing import Any

import pytest

from hiplan.coordination import Limits, Tracker, on_failure, replay
from hiplan.envs import make_env
from hiplan.errors import ConfigError, EnvironmentFault
from hiplan.executors import Executor, ExecutorProtocol, OracleExecutor
from hiplan.model import ScriptedModel
from hiplan.plan import ReplanReason
from hiplan.planners import OraclePlanner, Planner, PlannerProtocol
from hiplan.prompts import BRIEF, FULL
from hiplan.sampler import Job, Sampler
from hiplan.task import StepResult
from hiplan.trace import Conversation, Episode, StopReason

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*-*.json"))
MOMENTS = [
    (path, upto, revised)
    for path in GOLDEN
    for upto in range(len(Episode.from_json(path.read_text(encoding="utf-8")).turns) + 1)
    for revised in (False, True)
]


def golden(path: Path) -> Episode:
    return Episode.from_json(path.read_text(encoding="utf-8"))


def saying(record: Episode) -> ScriptedModel:
    """A model that says what the roles said in the record."""

    def say(conversation: Conversation) -> str:
        answers = [s for talk in record.exchanges(conversation.role) for s in talk.answers()]
        return answers[len(conversation.answers())].text

    return ScriptedModel(say)


@pytest.mark.parametrize(("path", "upto", "revised"), MOMENTS, ids=lambda x: x.stem if isinstance(x, Path) else str(x))
def test_a_replayed_episode_continues_to_the_recorded_end(path: Path, upto: int, revised: bool) -> None:
    record = golden(path)
    start = replay(record, upto, make_env(record.task), revised)
    assert start.episode.turns == record.turns[:upto]
    if record.stop is StopReason.FAULT:
        return  # what it would have come to, had the engine not failed, is not recorded
    limits = Limits(turns=len(record.turns)) if record.stop is StopReason.TURN_LIMIT else Limits()
    job = Job(record.task, *roles(record), start=start)
    (again,) = Sampler(saying(record), make_env, limits=limits).run([job])
    assert again.to_json() == record.to_json()


def roles(record: Episode) -> tuple[PlannerProtocol, ExecutorProtocol]:
    if not record.conversations:
        return OraclePlanner(), OracleExecutor()
    told = record.conversations["planner"].segments[0].text
    prompts = BRIEF if told == BRIEF.planner_system else FULL
    return Planner(prompts), Executor(prompts)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_replayed_tracker_and_environment_are_as_they_were(path: Path) -> None:
    """The tracker against that of a whole episode played live, which the replan policy sees turn by turn."""
    record = golden(path)
    live: list[dict[str, Any]] = []

    def watch(tracker: Tracker, episode: Episode) -> ReplanReason | None:
        live.append(state(tracker))
        return on_failure()(tracker, episode)

    job = Job(record.task, *roles(record))
    Sampler(saying(record), make_env, replan=watch, limits=Limits(turns=len(record.turns))).run([job])
    assert len(live) == len(record.turns) - 1
    for upto, expected in enumerate(live, 1):
        start = replay(record, upto, make_env(record.task), revised=False)
        assert state(start.tracker) == expected
        assert repr(start.env.state_key()) == record.turns[upto - 1].state_key


def state(tracker: Tracker) -> dict[str, Any]:
    known = {key: value for key, value in vars(tracker).items() if key != "graph"}
    return known | {"done": set(tracker.done), "failed": set(tracker.failed)}


def test_what_cannot_be_replayed_is_named() -> None:
    record = golden(GOLDEN[0])
    with pytest.raises(
        ConfigError, match=f"upto must be between 0 and the episode's {len(record.turns)} turns, got 99"
    ):
        replay(record, 99, make_env(record.task))
    task = record.task.model_copy(update={"params": {"seed": 2}})
    record.task = task
    with pytest.raises(EnvironmentFault, match=r"reset returned .* but the record has"):
        replay(record, 0, make_env(task))


def test_an_environment_that_has_changed_is_named() -> None:
    record = golden(GOLDEN[1])
    env = make_env(record.task)
    env.step = lambda action: StepResult("something else")  # type: ignore[method-assign]
    with pytest.raises(EnvironmentFault, match=r"turn 0 \(.*\) returned 'something else'"):
        replay(record, 1, env)
