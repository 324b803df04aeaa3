"""The loop, run by the batched driver: whole episodes against stored ones, and what may go wrong in them.

``golden/*.json`` hold the episodes, token for token. After a deliberate change write them anew and read the diff:

    HIPLAN_GOLDEN=write python -m pytest tests/test_loop.py && git diff tests/golden
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiplan.coordination import Limits, Tracker, never, on_failure
from hiplan.envs import make_env
from hiplan.envs.crafting import Crafting
from hiplan.errors import TaskError, UserError
from hiplan.executors import Executor, OracleExecutor, ScriptedExecutor
from hiplan.model import Completion, Decoding, Model, Request, ScriptedModel, derive_seed
from hiplan.plan import Plan, PlanStep, ReplanKind, ReplanReason
from hiplan.planners import FixedPlanner, NoPlanner, OraclePlanner, Planner
from hiplan.prompts import BRIEF, FULL, Prompts
from hiplan.sampler import Job, Sampler
from hiplan.task import StepResult, Task
from hiplan.trace import Conversation, Episode, StopReason, Verdict

GOLDEN = Path(__file__).parent / "golden"
RECIPES = ["craft 2 plank using 1 log", "craft 1 hinge using 2 iron, 1 tin", "craft 1 door using 4 plank, 1 hinge"]
DOOR = Task(env="crafting", params={"recipes": RECIPES, "goal": "door"})
PLANK = Task(env="crafting", params={"recipes": RECIPES[:1], "goal": "plank"})
CUP = Task(
    env="household", params={"seed": 1, "kind": "clean"}
)  # the cup lies on rack 1 and belongs, clean, into a box
MAKE_DOOR = ["get 2 log", RECIPES[0], RECIPES[0], "get 2 iron", "get 1 tin", RECIPES[1], RECIPES[2]]


def episode_of(
    task: Task,
    planner: Sequence[str] = (),
    executor: Sequence[str] = (),
    prompts: Prompts = BRIEF,
    limits: Limits | None = None,
    make: Any = make_env,
) -> Episode:
    """One episode whose roles say these texts, all of them."""
    texts = {"planner": list(planner), "executor": list(executor)}
    model = ScriptedModel(lambda conversation: texts[conversation.role].pop(0))
    (episode,) = Sampler(model, make, limits=limits or Limits()).run([Job(task, Planner(prompts), Executor(prompts))])
    assert texts == {"planner": [], "executor": []}
    return episode


def check_golden(name: str, episode: Episode) -> None:
    """The episode is the stored one, and comes back from its JSON as it was."""
    text = json.dumps(json.loads(episode.to_json()), indent=1, ensure_ascii=False) + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("HIPLAN_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    assert Episode.from_json(text).to_json() == episode.to_json()


def verdicts(episode: Episode) -> list[tuple[Verdict | None, int | None]]:
    return [(turn.verdict, turn.step) for turn in episode.turns]


ON, OFF, EARLY, AGAIN = Verdict.ON_PLAN, Verdict.OFF_PLAN, Verdict.PREMATURE, Verdict.REPEATED


# -- golden traces ----------------------------------------------------------------------------


def test_a_failed_step_leads_to_a_revision() -> None:
    plans = [
        "Need door\n1. make door",
        "Need door, hinge, plank\n2. make plank\n3. make hinge\n1. make door after 2, 3",
    ]
    episode = episode_of(DOOR, plans, ["get 4 plank", *MAKE_DOOR])
    assert episode.success and episode.stop is StopReason.TERMINATED
    assert [(r.turn, r.reason, r.kept) for r in episode.plans] == [
        (0, None, False),
        (1, ReplanReason(kind=ReplanKind.STEP_FAILED, step=1), False),
    ]
    assert episode.plan is not None and episode.plan.revision == 1
    assert verdicts(episode) == [(ON, 1), (ON, 2), (ON, 2), (AGAIN, 2), (ON, 3), (ON, 3), (ON, 3), (ON, 1)]
    check_golden("crafting-revised", episode)


def test_a_plan_may_be_kept_and_revised_later() -> None:
    plans = [
        "1. find cup at shelf 1\n2. clean cup at sink 1 after 1\n3. put cup in box 1 after 2",
        "keep",
        "4. find cup at rack 1\n2. clean cup at sink 1 after 4\n3. put cup in box 1 after 2",
    ]
    actions = ["go to shelf 1", "go to box 1", "go to rack 1", "take cup 1 from rack 1", "go to sink 1",
               "clean cup 1 with sink 1", "go to box 1", "open box 1", "put cup 1 in/on box 1"]  # fmt: skip
    episode = episode_of(CUP, plans, actions)
    assert episode.success
    assert [(r.turn, r.kept) for r in episode.plans] == [(0, False), (1, True), (2, False)]
    assert episode.plans[1].plan == episode.plans[0].plan
    assert [r.plan.revision for r in episode.plans if r.plan] == [0, 0, 1]
    assert verdicts(episode)[:3] == [(ON, 1), (EARLY, 3), (ON, 4)]
    check_golden("household-kept-then-revised", episode)


def test_the_planner_is_told_each_turn_once() -> None:
    plans = ["1. make door", "keep", "keep"]
    texts = {"planner": plans, "executor": ["plank", "door", "hinge", "get 2 log"]}
    model = ScriptedModel(lambda conversation: texts[conversation.role].pop(0))

    def replan(tracker: Tracker, episode: Episode) -> ReplanReason | None:
        return ReplanReason(kind=ReplanKind.STUCK) if len(episode.turns) in (1, 3) else None

    job = Job(DOOR, Planner(FULL), Executor(FULL))
    (episode,) = Sampler(model, make_env, replan=replan, limits=Limits(turns=4)).run([job])
    told = [s.text for s in episode.conversations["planner"].segments if s.author == "user"][1:]
    assert [[line for line in text.splitlines() if line.startswith("> ")] for text in told] == [
        ["> plank"],
        ["> door", "> hinge"],
    ]


def test_what_comes_before_the_last_line_is_thought() -> None:
    thought = [f"for plank: 2 log\n\n  {action}  \n" for action in MAKE_DOOR]
    episode = episode_of(DOOR, ["1. make plank\n2. make hinge\n3. make door after 1, 2"], thought)
    assert episode.success and [turn.action for turn in episode.turns] == MAKE_DOOR


def test_a_plan_used_up_leads_to_a_revision() -> None:
    plans = ["1. make plank", "2. make hinge\n3. make door after 2"]
    actions = ["get 2 log", RECIPES[0], RECIPES[0], "inventory", "get 2 iron", "get 1 tin", RECIPES[1], RECIPES[2]]
    episode = episode_of(DOOR, plans, actions)
    assert episode.success
    assert [r.reason.kind for r in episode.plans if r.reason] == [ReplanKind.USED_UP]
    assert verdicts(episode)[2:4] == [(OFF, None), (OFF, None)]
    check_golden("crafting-used-up", episode)


def test_a_plan_that_does_not_parse_is_mended() -> None:
    plans = ["First planks, then a hinge.", "Again:\n1. make plank\n2. make hinge\n3. make door after 1, 2"]
    episode = episode_of(DOOR, plans, [f"Step by step.\nAction: {action}" for action in MAKE_DOOR], FULL)
    assert episode.success and episode.mistakes == {"planner": 1}
    assert [(r.turn, r.error) for r in episode.plans] == [(0, "")]
    asked = [s.text for s in episode.conversations["planner"].segments if s.author == "user"]
    assert "no steps found; write one step per line" in asked[1]
    check_golden("crafting-mended", episode)


def test_a_plan_that_never_parses_is_gone_without_and_recorded() -> None:
    episode = episode_of(DOOR, ["1. make plank\n1. make door", "2. make door after 1"], MAKE_DOOR)
    assert episode.success and episode.plan is None and episode.mistakes == {"planner": 2}
    assert [(r.plan, r.error) for r in episode.plans] == [(None, "step 2 comes after step 1, but there is no step 1")]
    assert verdicts(episode) == [(None, None)] * 7
    assert episode.conversations["executor"].segments[1].text.endswith("\nNo plan.")
    check_golden("crafting-not-mended", episode)


def test_a_revision_that_never_parses_keeps_the_plan_and_is_recorded() -> None:
    episode = episode_of(DOOR, ["1. make door", "hm", "hm"], ["get 4 plank", "inventory"], limits=Limits(turns=2))
    first, second = episode.plans
    assert second.kept and second.plan == first.plan and second.error.startswith("no steps found")
    assert episode.mistakes == {"planner": 2}
    check_golden("crafting-revision-not-mended", episode)


def test_the_turn_limit() -> None:
    episode = episode_of(DOOR, ["1. make plank\n2. make door after 1"], MAKE_DOOR[:3], limits=Limits(turns=3))
    assert (episode.stop, len(episode.turns), episode.reward, episode.success) == (StopReason.TURN_LIMIT, 3, 0.0, False)
    check_golden("crafting-turn-limit", episode)


def test_actions_without_effect_end_the_episode() -> None:
    idle = ["dance", "inventory", "inventory", "", "get 1 log now"]
    episode = episode_of(PLANK, ["1. make plank", "keep"], ["get 1 log", *idle])
    assert episode.stop is StopReason.STUCK and episode.mistakes == {"executor": 1}
    assert [(r.turn, r.reason) for r in episode.plans[1:]] == [(4, ReplanReason(kind=ReplanKind.STUCK))]
    check_golden("crafting-stuck", episode)


class Breaks(Crafting):
    """Its engine fails at the third action."""

    def __init__(self, task: Task, error: Exception | None = None) -> None:
        super().__init__(task)
        self.count, self.closed, self.error = 0, 0, error or OSError("the engine hung up")

    def step(self, action: str) -> StepResult:
        self.count += 1
        if self.count == 3:
            raise self.error
        return super().step(action)

    def close(self) -> None:
        self.closed += 1


def test_an_environment_that_fails_ends_its_episode_only() -> None:
    envs: list[Crafting] = []

    def make(task: Task) -> Crafting:
        envs.append(Crafting(task) if task is DOOR else Breaks(task))
        return envs[-1]

    broken = Task(env="crafting", params={"seed": 1})
    jobs = [Job(task, OraclePlanner(), OracleExecutor()) for task in (DOOR, broken, DOOR)]
    sound, failed, other = Sampler(ScriptedModel([]), make).run(jobs)
    assert sound.success and other.success
    assert (failed.stop, len(failed.turns)) == (StopReason.FAULT, 2)
    assert failed.error.startswith("EnvironmentFault: step('")
    assert failed.error.endswith("') raised OSError: the engine hung up")
    assert isinstance(envs[1], Breaks) and envs[1].closed == 1
    check_golden("crafting-fault", failed)


# -- failures ---------------------------------------------------------------------------------


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


# -- the batched driver -----------------------------------------------------------------------


class Watched(Model):
    """Answers like a model whose words depend on the conversation alone, and notes what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[Request]] = []

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        self.calls.append(list(requests))
        assert len({request.role for request in requests}) == 1
        return [Completion(self.say(request.conversation)) for request in requests]

    @staticmethod
    def say(conversation: Conversation) -> str:
        if conversation.role == "planner":
            return "1. make door" if conversation.segments[-1].turn == 0 else "keep"
        said = sum(s.author == "assistant" for s in conversation.segments)
        return ["get 4 plank", *MAKE_DOOR][said % 8] if "door" in conversation.segments[1].text else "look"


def test_episodes_do_not_depend_on_their_siblings() -> None:
    def jobs() -> list[Job]:
        return [Job(task, Planner(BRIEF), Executor(BRIEF), seed) for seed, task in enumerate([DOOR, CUP, PLANK, DOOR])]

    together = Sampler(Watched(), make_env).run(jobs())
    alone = [Sampler(Watched(), make_env).run([job])[0] for job in jobs()]
    assert [e.to_json() for e in together] == [e.to_json() for e in alone]
    assert [e.task for e in together] == [DOOR, CUP, PLANK, DOOR]
    assert {e.stop for e in together} == {StopReason.TERMINATED, StopReason.STUCK}


def test_waiting_episodes_share_model_calls() -> None:
    model = Watched()
    jobs = [Job(DOOR, Planner(BRIEF), Executor(BRIEF), seed) for seed in range(5)]
    jobs[4] = Job(DOOR, Planner(BRIEF), Executor(BRIEF), 4, Decoding(0.0, 8))
    Sampler(model, make_env, Decoding(0.7, 16)).run(jobs)
    assert [(call[0].role, len(call)) for call in model.calls] == [
        ("planner", 5), ("executor", 5), ("planner", 5), *[("executor", 5)] * 7,
    ]  # fmt: skip
    assert [r.decoding for r in model.calls[0]] == [Decoding(0.7, 16)] * 4 + [Decoding(0.0, 8)]
    seeds = [request.seed for call in model.calls for request in call]
    assert len(set(seeds)) == len(seeds), "no two samples share a seed"
    assert seeds[:2] == [derive_seed(0, "planner", 1), derive_seed(1, "planner", 1)]


def test_conversations_only_grow() -> None:
    seen: dict[int, list[Any]] = {}

    def say(conversation: Conversation) -> str:
        before = seen.get(id(conversation), [])
        assert conversation.segments[: len(before)] == before
        seen[id(conversation)] = list(conversation.segments)
        return Watched.say(conversation)

    Sampler(ScriptedModel(say), make_env).run([Job(DOOR, Planner(FULL), Executor(FULL))])


def test_sampled_tokens_are_kept_as_they_were() -> None:
    class Tokens(Model):
        def complete(self, requests: Sequence[Request]) -> list[Completion]:
            return [
                Completion("inventory", ids=(7, 8), logprobs=(-0.5, -0.25), prompt_ids=(1, 2, 3), finish="length")
                for _ in requests
            ]

    (episode,) = Sampler(Tokens(), make_env, limits=Limits(turns=1)).run([Job(DOOR, NoPlanner(), Executor(BRIEF))])
    conversation = Episode.from_json(episode.to_json()).conversations["executor"]
    assert conversation.ids() == [1, 2, 3, 7, 8]
    last = conversation.segments[-1]
    assert (last.logprobs, last.finish, last.trained, last.kind) == ((-0.5, -0.25), "length", True, "action")
    assert not conversation.pending()


# -- planners and policies in the loop --------------------------------------------------------


@pytest.mark.parametrize(
    "task", [DOOR, CUP, *(Task(env="household", params={"seed": s, "kind": "two"}) for s in range(5))]
)
def test_oracles_solve_what_they_plan(task: Task) -> None:
    """Household oracles guess, fail, revise, and stay on plan."""
    (episode,) = Sampler(ScriptedModel([]), make_env).run([Job(task, OraclePlanner(), OracleExecutor())])
    assert episode.success
    assert {turn.verdict for turn in episode.turns} <= {ON, AGAIN}
    (react,) = Sampler(ScriptedModel([]), make_env).run([Job(task, NoPlanner(), OracleExecutor())])
    assert react.success and react.plan is None and not react.conversations


def test_a_given_plan_is_never_revised() -> None:
    plan = Plan(
        steps=(PlanStep(id=1, description="find cup at shelf 1"), PlanStep(id=2, description="put cup in box 1"))
    )
    (episode,) = Sampler(ScriptedModel([]), make_env).run([Job(CUP, FixedPlanner(plan), OracleExecutor())])
    assert len(episode.plans) > 1 and all(record.kept for record in episode.plans[1:])
    assert {record.plan for record in episode.plans} == {plan}


def test_a_policy_may_never_ask() -> None:
    model = Watched()
    (episode,) = Sampler(model, make_env, replan=never).run([Job(DOOR, Planner(BRIEF), Executor(BRIEF))])
    assert len(episode.plans) == 1 and sum(call[0].role == "planner" for call in model.calls) == 1


def test_revisions_are_capped() -> None:
    model = ScriptedModel(lambda c: "1. make door" if c.role == "planner" else "get 1 plank")
    job, limits = Job(DOOR, Planner(BRIEF), Executor(BRIEF)), Limits(turns=9, idle=99)
    for cap in (0, 3):
        (episode,) = Sampler(model, make_env, replan=on_failure(cap=cap), limits=limits).run([job])
        assert len(episode.plans) == 1 + cap and len(episode.turns) == 9


def test_scripts_must_fit() -> None:
    with pytest.raises(UserError, match="no text left for the planner's prompt 'Recipes:"):
        Sampler(ScriptedModel([]), make_env).run([Job(PLANK, Planner(BRIEF), Executor(BRIEF))])


class Plain:
    """An environment that offers nothing optional."""

    def __init__(self, task: Task) -> None:
        env = Crafting(task)
        self.reset, self.step, self.state_key, self.close = env.reset, env.step, env.state_key, env.close


def test_environments_that_know_nothing_of_plans() -> None:
    """Shared words tell which step an action serves; a plan that is kept loses nothing of what was seen."""
    plans = ["1. get some log\n2. make plank after 1\n3. make door after 2", "keep"]
    actions = ["get 1 log", "get the log", RECIPES[0], "get 1 log", RECIPES[0]]
    episode = episode_of(DOOR, plans, actions, limits=Limits(turns=5), make=Plain)
    assert verdicts(episode) == [(ON, 1), (ON, 1), (EARLY, 2), (AGAIN, 1), (AGAIN, 2)]
    assert [(r.turn, r.kept) for r in episode.plans] == [(0, False), (2, True)]
    (blind,) = Sampler(ScriptedModel([]), Plain).run([Job(DOOR, OraclePlanner(), OracleExecutor())])
    assert blind.plan is None and blind.stop is StopReason.STUCK


def test_tasks_are_addressed_by_content() -> None:
    a, b = ({"seed": 1, "kind": "put"}, {"kind": "put", "seed": 1})
    assert Task(env="household", params=a).id == Task(env="household", params=b).id
    assert Task(env="household", params=a).id != Task(env="crafting", params=a).id
    assert len({Task(env="crafting", params={"seed": s}).id for s in range(1000)}) == 1000
    with pytest.raises(TaskError):
        make_env(task := Task(env="crafting", params={"seed": 1.5})).reset(task)
