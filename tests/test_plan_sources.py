"""Where plans come from: the oracle, hindsight, the judge's choice, a plan file; and when they are revised."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from doubles import Letters, letters
from trainers import EXECUTOR, PLANNER, TWO, build, replace_stage, watch

from hiplan.coordination import Limits, ReplanPolicy, replan, rules_judge
from hiplan.errors import ConfigError
from hiplan.executors import Executor
from hiplan.model import ScriptedModel
from hiplan.plan import Plan, PlanStep, ReplanKind, ReplanReason
from hiplan.planners import FixedPlanner, OraclePlanner
from hiplan.prompts import BRIEF
from hiplan.sampler import Job, Sampler
from hiplan.task import Task
from hiplan.trace import Conversation, Episode, PlanRecord, Turn, Verdict
from hiplan.training import sources
from hiplan.training.config import PlanSourceName


def scripted(plans: Sequence[str], actions: Callable[[Conversation], str]) -> ScriptedModel:
    """The n-th planner always says the n-th plan; actions are a function of the executor's conversation."""
    said, spoken = iter(plans), dict[int, str]()

    def say(conversation: Conversation) -> str:
        if conversation.role == "executor":
            return actions(conversation)
        if id(conversation) not in spoken:
            spoken[id(conversation)] = next(said)
        return spoken[id(conversation)]

    return ScriptedModel(say, BRIEF)


def test_the_oracle_gives_its_plans() -> None:
    run = build(replace_stage(EXECUTOR, iterations=1))
    jobs = watch(run)
    run.train()
    assert all(isinstance(job.planner, OraclePlanner) for job in jobs)


def test_hindsight_gives_the_plan_of_a_success_and_none_where_there_was_none() -> None:
    tasks = [letters(1, k=0), letters(1, k=1)]
    plans = ["1. say z", "no plan", "1. say b", "1. say c"] + ["1. say z"] * 4
    model = scripted(plans, lambda conversation: conversation.segments[1].text[-1])
    source = sources.hindsight(Sampler(model, Letters, limits=Limits(turns=1)))
    first, second = source(tasks, 0)
    assert isinstance(first, FixedPlanner) and second is None
    done = Sampler(ScriptedModel(["b"]), Letters).run([Job(tasks[0], first, Executor(BRIEF))])[0]
    assert done.plan is not None and done.plan.steps[0].description == "say b"  # the first that succeeded


def test_hindsight_puts_what_was_done_before_a_revision_in_front_of_it() -> None:
    def steps(*described: tuple[int, str, tuple[int, ...]]) -> Plan:
        return Plan(steps=tuple(PlanStep(id=i, description=text, after=after) for i, text, after in described))

    first = steps((1, "find cup", ()), (2, "wash cup", (1,)), (3, "dry cup", (2,)), (4, "put cup away", (3,)))
    revised = steps((5, "find towel", ()), (4, "put cup away", (5,)))
    failed = ReplanReason(kind=ReplanKind.STEP_FAILED, step=3)
    served = [(1, Verdict.ON_PLAN), (4, Verdict.PREMATURE), (2, Verdict.ON_PLAN), (3, Verdict.ON_PLAN)]
    episode = Episode(TWO, "", plans=[PlanRecord(0, first), PlanRecord(4, revised, failed)])
    episode.turns = [Turn(i, "", "", 0.0, False, verdict, step) for i, (step, verdict) in enumerate(served)]
    whole = sources.merged_plan(episode)
    assert whole is not None and Plan.model_validate(whole.model_dump()) == whole
    assert [(s.id, s.after) for s in whole.steps] == [(1, ()), (2, (1,)), (5, ()), (4, (5,))]
    assert sources.merged_plan(Episode(TWO, "", plans=[PlanRecord(0, first)])) == first
    assert sources.merged_plan(Episode(TWO, "")) is None


def test_filtered_gives_the_first_plan_that_the_judge_passes() -> None:
    good, bad = "1. say a\n2. say a after 1", "1. dance"
    plans = [bad, "no plan", good, "1. say a"] + [bad] * 4
    sampler = Sampler(scripted(plans, lambda c: "a"), Letters)
    source = sources.filtered(sampler, rules_judge(Letters))
    first, second = source([letters(2, k=0), letters(2, k=1)], 0)
    assert isinstance(first, FixedPlanner) and second is None
    done = Sampler(ScriptedModel(["a", "a"]), Letters).run([Job(TWO, first, Executor(BRIEF))])[0]
    assert done.plan is not None and len(done.plan.steps) == 2


@pytest.mark.parametrize("plans", ["hindsight", "filtered"])
@pytest.mark.parametrize("task", [TWO, letters(2, broken=True), Task(env="letters", params={"turns": "none"})], ids=str)
def test_training_goes_on_when_a_source_has_no_plans(plans: PlanSourceName, task: Task) -> None:
    """Also where environments fail; and environments that do not understand plans pass none."""

    class Unaware(Letters):
        serves = None  # type: ignore[assignment]

    run = build(replace_stage(EXECUTOR, plans=plans), make_env=Unaware if task is TWO else Letters, tasks=[task])
    run.train()
    assert [row["episodes"] for row in run.metrics.rows] == [0, 0]


@pytest.mark.parametrize(
    ("named", "own", "asked"),
    [
        ("on_failure", None, []),
        ("every_turn", None, [ReplanKind.SCHEDULED] * 2),
        ("never", None, []),
        ("never", replan.every(2), [ReplanKind.SCHEDULED]),
    ],
)
def test_plans_are_revised_as_the_settings_or_a_function_say(
    named: str, own: ReplanPolicy | None, asked: list[ReplanKind]
) -> None:
    """Also in episodes of hindsight and in demonstrations."""
    settings = {"tasks": [letters(3)], "turns": 3, "replan": own, "warm_start": 2}
    stages = replace_stage(EXECUTOR, iterations=1), replace_stage(PLANNER, iterations=1, plans="hindsight")
    config = {"replan": named}
    run = build(*stages, config=config, **settings)
    assert run.sampler.replan is (own or replan.REPLAN_POLICIES[named])
    played: list[Episode] = run.demonstrations.copy()
    shown = len(played)
    watch(run, played.extend)
    run.train()
    with_plans = [e for e in played if e.plans and e.plans[0].plan and len(e.turns) == 3]
    assert shown and len(with_plans) > 2 + shown
    assert all([r.reason.kind for r in e.plans if r.reason] == asked for e in with_plans)


def test_a_plan_file_gives_its_tasks_and_their_plans(tmp_path: Path) -> None:
    path = tmp_path / "plans.jsonl"
    tasks = [letters(1, k=k) for k in range(3)]
    path.write_text("".join(json.dumps({"task": t.model_dump(), "plan": "1. say a"}) + "\n" for t in tasks))
    run = build(replace_stage(EXECUTOR, plans="file"), groups=12, group_size=2, plan_file=str(path))
    jobs = watch(run)
    run.train()
    assert {job.task.id for job in jobs} == {task.id for task in tasks}
    assert all(isinstance(job.planner, FixedPlanner) for job in jobs)


GOOD_LINE = json.dumps({"task": TWO.model_dump(), "plan": "1. say a"})


@pytest.mark.parametrize(("text", "message"), [
    (None, "no plan file at"),
    ("\udcff", "is not UTF-8 text"),
    ("", "is empty"),
    (f"{GOOD_LINE}\nnot json\n", "line 2 of the plan file"),
    (f"{GOOD_LINE}\n\n", "line 2 of the plan file"),
    ('{"task": {"env": "letters"}}\n', "line 1 .*plan"),
    ('{"task": {"env": ""}, "plan": "1. a"}\n', "line 1 of the plan file"),
    ('{"task": {"env": "letters"}, "plan": "dance"}\n', "line 1 .*no steps found"),
    ('{"task": {"env": "letters"}, "plan": 7}\n', "line 1 of the plan file"),
    ("[]\n", "line 1 of the plan file"),
])  # fmt: skip
def test_a_plan_file_that_cannot_be_used_says_where_and_why(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "plans.jsonl"
    if text is not None:
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ConfigError, match=message) as caught:
        sources.from_file(path)
    assert "\n" not in str(caught.value)


def test_a_stage_without_its_plan_file_says_so() -> None:
    with pytest.raises(ConfigError, match=r"'executor' takes its plans from a file; set train\.plan_file"):
        build(replace_stage(EXECUTOR, plans="file"))
    with pytest.raises(ConfigError, match="no plan file at"):
        build(replace_stage(EXECUTOR, plans="file"), plan_file="nowhere.jsonl")
