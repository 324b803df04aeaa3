"""The drivers for apps: the same episode as a rollout's, plans approved by a person, cancelling, failing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from hiplan.agent import Agent, Event
from hiplan.coordination import Limits
from hiplan.effects import Acted, PlanReady
from hiplan.envs import make_env
from hiplan.envs.crafting import Crafting
from hiplan.errors import EnvironmentFault, TaskError, UserError
from hiplan.executors import Executor, OracleExecutor
from hiplan.formats import parse_numbered
from hiplan.model import ScriptedModel
from hiplan.plan import Plan
from hiplan.planners import NoPlanner, OraclePlanner, Planner
from hiplan.prompts import BRIEF
from hiplan.sampler import Job, Sampler
from hiplan.task import StepResult, Task
from hiplan.trace import Conversation, Episode, StopReason

RECIPES = ["craft 2 plank using 1 log", "craft 1 hinge using 2 iron, 1 tin", "craft 1 door using 4 plank, 1 hinge"]
DOOR = Task(env="crafting", params={"recipes": RECIPES, "goal": "door"})
MAKE_DOOR = ["get 2 log", RECIPES[0], RECIPES[0], "get 2 iron", "get 1 tin", RECIPES[1], RECIPES[2]]
CUP = Task(env="household", params={"seed": 1, "kind": "clean"})
BETTER = parse_numbered("1. make plank\n2. make hinge\n3. make door after 1, 2")
SCRIPTS = {
    "revised": (
        DOOR,
        ["1. make door", "2. make plank\n3. make hinge\n1. make door after 2, 3", "get 4 plank", *MAKE_DOOR],
    ),
    "mended": (DOOR, ["make a door", "1. make plank\n2. make hinge\n3. make door", *MAKE_DOOR]),
    "no plan": (DOOR, ["1.", "2.", *MAKE_DOOR]),
    "stuck": (CUP, ["1. find cup at shelf 1", "keep", "dance", "go to rack 9", "dance", "dance", "dance"]),
}


def scripted(name: str) -> tuple[Task, ScriptedModel]:
    task, texts = SCRIPTS[name]
    lines = {"planner": texts[:2], "executor": texts[2:]}
    return task, ScriptedModel(lambda conversation: lines[conversation.role].pop(0))


def agent_for(model: ScriptedModel, **options: Any) -> Agent:
    return Agent(model, Planner(BRIEF), Executor(BRIEF), **options)


def collect(agent: Agent, task: Task) -> list[Event]:
    async def events() -> list[Event]:
        return [event async for event in agent.astream(task)]

    return asyncio.run(events())


class Closing(Crafting):
    """Knows whether it was closed."""

    made: Closing

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.closed = 0
        Closing.made = self

    def close(self) -> None:
        self.closed += 1


# -- one loop ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_all_drivers_give_the_same_episode(name: str) -> None:
    task, model = scripted(name)
    (expected,) = Sampler(model, make_env).run([Job(task, Planner(BRIEF), Executor(BRIEF))])
    assert expected.stop in (StopReason.TERMINATED, StopReason.STUCK)
    assert agent_for(scripted(name)[1]).run(task).to_json() == expected.to_json()
    for event in (stream := agent_for(scripted(name)[1]).stream(task)):
        assert event.episode is stream.episode
    assert stream.episode.to_json() == expected.to_json()
    events = collect(agent_for(scripted(name)[1]), task)
    assert events[-1].episode.to_json() == expected.to_json()
    assert Episode.from_json(expected.to_json()).to_json() == expected.to_json()


def test_events_tell_the_story() -> None:
    task, model = scripted("revised")
    shown = [
        (type(event), event.record.turn if isinstance(event, PlanReady) else event.turn.action)
        for event in agent_for(model).stream(task)
    ]
    acted = [(Acted, action) for action in ["get 4 plank", *MAKE_DOOR]]
    assert shown == [(PlanReady, 0), acted[0], (PlanReady, 1), *acted[1:]]


def test_the_last_event_knows_that_it_is_over() -> None:
    for event in (stream := agent_for(scripted("revised")[1]).stream(DOOR)):
        if event.episode.stop is not None:
            break
    stream.close()
    assert stream.episode.success, "an app that leaves at the last event cancels nothing"


def test_what_an_agent_has_by_default() -> None:
    """Embedded environments, language-model roles with the model's prompts, greedy decoding."""
    task, model = scripted("revised")
    model.prompts = BRIEF
    expected = agent_for(scripted("revised")[1]).run(task)
    assert Agent(model).run(task).to_json() == expected.to_json()
    assert Agent(model).decoding.temperature == 0.0
    plain = Agent(
        ScriptedModel(lambda c: "Action: get 1 log" if c.role == "executor" else "1. make door"), limits=Limits(2)
    )
    assert "one action per answer" in plain.run(DOOR).conversations["executor"].segments[0].text


def test_roles_without_a_model() -> None:
    assert Agent(ScriptedModel([]), OraclePlanner(), OracleExecutor()).run(CUP).success
    assert Agent(ScriptedModel([]), NoPlanner(), OracleExecutor()).run(DOOR).success


# -- approval ---------------------------------------------------------------------------------


def edit_first(event: PlanReady) -> Plan | None:
    return BETTER if event.record.turn == 0 else None


async def edit_first_later(event: PlanReady) -> Plan | None:
    await asyncio.sleep(0)
    return edit_first(event)


@pytest.mark.parametrize("name", ["revised", "no plan"])
def test_a_person_may_put_a_plan_in_place_of_the_planners(name: str) -> None:
    """Also where the planner's text never parsed."""

    def model() -> ScriptedModel:
        texts, actions = SCRIPTS[name][1][:2], list(MAKE_DOOR)
        return ScriptedModel(
            lambda c: actions.pop(0) if c.role == "executor" else texts[c.segments[-1].text[:6] == "error:"]
        )

    episode = agent_for(model(), approve=edit_first).run(DOOR)
    assert episode.success and [record.plan for record in episode.plans] == [BETTER]
    assert episode.plans[0].error == ""
    executor = episode.conversations["executor"]
    assert "Plan:\n1. make plank\n2. make hinge\n3. make door after 1, 2" in executor.segments[1].text
    for approve in (edit_first, edit_first_later):
        events = collect(agent_for(model(), approve=approve), DOOR)
        assert events[-1].episode.to_json() == episode.to_json()


def test_an_edit_is_a_revision_of_its_own() -> None:
    """It is numbered as one, and steps done before stay done where they read the same."""
    task, model = scripted("revised")
    edits = iter([None, parse_numbered("1. make door after 2\n2. make plank")])
    episode = agent_for(model, approve=lambda event: next(edits)).run(task)
    assert [r.plan.revision for r in episode.plans if r.plan] == [0, 1]
    assert episode.plan is not None and [s.description for s in episode.plan.steps] == ["make door", "make plank"]
    assert episode.plans[1].reason is not None and not episode.plans[1].kept


def test_edits_may_replace_a_plan_that_was_kept() -> None:
    task, model = scripted("stuck")
    episode = agent_for(model, approve=lambda e: BETTER if e.record.kept else None).run(task)
    assert [(r.kept, r.plan and r.plan.revision) for r in episode.plans] == [(False, 0), (False, 1)]


def test_giving_the_same_plan_back_approves_it() -> None:
    task, model = scripted("stuck")
    episode = agent_for(model, approve=lambda event: event.record.plan).run(task)
    assert episode.to_json() == agent_for(scripted("stuck")[1]).run(task).to_json()


def test_only_astream_awaits() -> None:
    agent = agent_for(scripted("revised")[1], approve=edit_first_later, make_env=Closing)
    with pytest.raises(UserError, match="approve is a coroutine function, which only astream awaits"):
        agent.run(DOOR)
    assert Closing.made.closed == 1


# -- cancelling -------------------------------------------------------------------------------


def test_closing_a_stream_cancels() -> None:
    stream = agent_for(scripted("revised")[1], make_env=Closing).stream(DOOR)
    for event in stream:
        if isinstance(event, Acted):
            break
    assert Closing.made.closed == 0
    stream.close()
    stream.close()
    assert Closing.made.closed == 1
    assert (stream.episode.stop, len(stream.episode.turns)) == (StopReason.CANCELLED, 1)
    assert not list(stream)
    unborn = agent_for(scripted("revised")[1]).stream(DOOR)
    unborn.close()
    assert unborn.episode.stop is StopReason.CANCELLED


def test_leaving_astream_cancels() -> None:
    async def leave() -> Episode:
        async for event in agent_for(scripted("revised")[1], make_env=Closing).astream(DOOR):
            if isinstance(event, Acted):
                break
        await asyncio.sleep(0.01)  # the event loop closes what was left
        assert Closing.made.closed == 1
        return event.episode

    assert asyncio.run(leave()).stop is StopReason.CANCELLED


@pytest.mark.parametrize("cancel", [asyncio.Task.cancel, lambda task: None], ids=["cancelled", "event loop ends"])
def test_an_environment_is_not_closed_while_it_acts(cancel: Callable[[Any], Any]) -> None:
    began, go_on = threading.Event(), threading.Event()
    heard: list[str] = []

    class Slow(Closing):
        def step(self, action: str) -> StepResult:
            began.set()
            heard.append("released" if go_on.wait(5) else "stuck")
            return super().step(action)

        def close(self) -> None:
            heard.append("closed")

    agent = Agent(ScriptedModel([]), OraclePlanner(), OracleExecutor(), make_env=Slow)
    seen: list[Event] = []

    async def main() -> None:
        async def consume() -> None:
            async for event in agent.astream(DOOR):
                seen.append(event)

        running = asyncio.create_task(consume())
        assert await asyncio.to_thread(began.wait, 5)
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        cancel(running)
        if running.cancelling():
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(main())
    assert heard == ["released", "closed"]
    assert seen[-1].episode.stop is StopReason.CANCELLED


def test_the_event_loop_stays_free() -> None:
    """Model and environment wait for something only the event loop does."""
    told = threading.Event()

    def say(conversation: Conversation) -> str:
        assert told.wait(5)
        return "1. make door" if conversation.role == "planner" else "inventory"

    class Waiting(Crafting):
        def step(self, action: str) -> StepResult:
            assert told.wait(5)
            told.clear()
            return super().step(action)

    async def main() -> list[Event]:
        async def tell() -> None:
            while True:
                told.set()
                await asyncio.sleep(0.001)

        teller = asyncio.create_task(tell())
        agent = agent_for(ScriptedModel(say), make_env=Waiting, limits=Limits(turns=2))
        events = [event async for event in agent.astream(DOOR)]
        teller.cancel()
        return events

    assert len(asyncio.run(main())) == 3


def test_many_agents_share_an_event_loop() -> None:
    async def one(name: str) -> str:
        task, model = scripted(name)
        return [event async for event in agent_for(model).astream(task)][-1].episode.to_json()

    async def main() -> list[str]:
        return await asyncio.gather(*(one(name) for name in [*SCRIPTS, *SCRIPTS]))

    expected = [agent_for(scripted(name)[1]).run(SCRIPTS[name][0]).to_json() for name in SCRIPTS]
    assert asyncio.run(main()) == expected * 2


# -- failing ----------------------------------------------------------------------------------


class Failing(Closing):
    def step(self, action: str) -> StepResult:
        raise StopIteration("out of replies")


def test_a_failing_environment_raises_and_is_recorded() -> None:
    stream = agent_for(scripted("revised")[1], make_env=Failing).stream(DOOR)
    with pytest.raises(EnvironmentFault, match="raised StopIteration: out of replies"):
        list(stream)
    (job,) = Sampler(scripted("revised")[1], Failing).run([Job(DOOR, Planner(BRIEF), Executor(BRIEF))])
    assert stream.episode.to_json() == job.to_json() and job.stop is StopReason.FAULT
    seen: list[Event] = []

    async def main() -> None:
        async for event in agent_for(scripted("revised")[1], make_env=Failing).astream(DOOR):
            seen.append(event)

    with pytest.raises(EnvironmentFault):
        asyncio.run(main())
    assert seen[-1].episode.to_json() == job.to_json()
    assert Closing.made.closed == 1


def test_what_a_caller_must_mend_is_raised() -> None:
    agent = agent_for(ScriptedModel([]), make_env=Closing)
    with pytest.raises(UserError, match="the script has no text left for the planner"):
        agent.run(DOOR)
    with pytest.raises(UserError, match="the script has no text left"):
        collect(agent, DOOR)
    assert Closing.made.closed == 1
    for task, message in ((Task(env="kitchen"), "unknown environment 'kitchen'"), (Task(env="crafting"), "seed")):
        with pytest.raises(TaskError, match=message):
            agent_for(ScriptedModel([])).run(task)
        with pytest.raises(TaskError, match=message):
            collect(agent_for(ScriptedModel([])), task)
