"""The loop, run by the batched driver: whole episodes against stored ones; planners and policies in it.

``golden/*.json`` hold the episodes, token for token. After a deliberate change write them again and read the diff:

    HIPLAN_GOLDEN=write python -m pytest tests/test_loop.py && git diff tests/golden
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from episodes import AGAIN, CUP, DOOR, EARLY, MAKE_DOOR, OFF, ON, PLANK, RECIPES, Breaks, Watched, episode_of, verdicts

from hiplan.coordination import Limits, Tracker, never, on_failure
from hiplan.envs import make_env
from hiplan.envs.crafting import Crafting
from hiplan.errors import TaskError, UserError
from hiplan.executors import Executor, OracleExecutor
from hiplan.model import ScriptedModel
from hiplan.plan import Plan, PlanStep, ReplanKind, ReplanReason
from hiplan.planners import FixedPlanner, NoPlanner, OraclePlanner, Planner
from hiplan.prompts import BRIEF, FULL
from hiplan.sampler import Job, Sampler
from hiplan.task import Task
from hiplan.trace import Episode, StopReason

GOLDEN = Path(__file__).parent / "golden"


def check_golden(name: str, episode: Episode) -> None:
    """The episode is the stored one, and comes back from its JSON as it was."""
    text = json.dumps(json.loads(episode.to_json()), indent=1, ensure_ascii=False) + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("HIPLAN_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    assert Episode.from_json(text).to_json() == episode.to_json()


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
