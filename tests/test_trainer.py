"""The progressive trainer on a trivial environment: who learns, from which plans, and what survives an interruption."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from doubles import Letters, frozen, letters, random_model
from torch import Tensor

from hiplan.coordination import Limits, ReplanPolicy, replan, rules_judge
from hiplan.env import Environment
from hiplan.envs import TaskSuite
from hiplan.errors import CheckpointError, ConfigError, PlanFormatError
from hiplan.executors import Executor
from hiplan.formats import PlanFormat, render_numbered
from hiplan.model import ScriptedModel
from hiplan.models.local import LocalModel
from hiplan.models.settings import WeightMode
from hiplan.plan import Plan, PlanStep, ReplanKind, ReplanReason
from hiplan.planners import FixedPlanner, NoPlanner, OraclePlanner
from hiplan.prompts import BRIEF
from hiplan.sampler import Job, Sampler
from hiplan.task import Task
from hiplan.trace import ROLES, Conversation, Episode, PlanRecord, Role, Turn, Verdict
from hiplan.training import checkpoint, sources
from hiplan.training.algorithm import Algorithm
from hiplan.training.config import PlanSourceName, Stage, TrainConfig
from hiplan.training.credit import Decision, Floats
from hiplan.training.learner import Learner
from hiplan.training.rewards import RewardWeights
from hiplan.training.trainer import ProgressiveTrainer

TOLERANCE = 2e-4  # between recorded and recomputed log-probabilities, as in test_local_model.py
EXECUTOR = Stage(name="executor", trains=("executor",), plans="oracle", iterations=2, learning_rate=0.01)
PLANNER = Stage(name="planner", trains=("planner",), iterations=2, learning_rate=0.01)
JOINT = Stage(name="joint", trains=ROLES, iterations=2, learning_rate=0.01, no_plan=0.3)
TWO = letters(2)


def build(
    *stages: Stage,
    model: LocalModel | None = None,
    tasks: Sequence[Task] = (TWO,),
    make_env: Callable[[Task], Environment] = Letters,
    folder: Path | None = None,
    seed: int = 0,
    checkpoint_every: int = 2,
    replan: ReplanPolicy | None = None,
    config: dict[str, Any] | None = None,
    algorithm: Algorithm | None = None,
    **settings: Any,
) -> ProgressiveTrainer:
    defaults = {"groups": 3, "group_size": 4, "plan_tokens": 4, "action_tokens": 4, "turns": 2}
    known = TrainConfig(stages=stages, **(defaults | settings | (config or {})))
    model = model or random_model(seed=1)
    mix = lambda rng: rng.choice(tasks)  # noqa: E731
    suite = TaskSuite("letters", make_env, mix)
    return ProgressiveTrainer(
        model, suite, config=known, seed=seed, output_dir=folder, resume=True, checkpoint_every=checkpoint_every,
        replan=replan, algorithm=algorithm,
    )  # fmt: skip


def watch(run: ProgressiveTrainer, change: Callable[[list[Episode]], None] = lambda episodes: None) -> list[Job]:
    """All jobs that the trainer plays from now on; ``change`` may alter their episodes."""
    seen: list[Job] = []

    def share(jobs: Sequence[Job], play: Callable[[Sequence[Job]], list[Episode]]) -> list[Episode]:
        seen.extend(jobs)
        change(episodes := play(jobs))
        return episodes

    run.sampler = replace(run.sampler, share=share)
    return seen


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Names of the adapters in which any bit differs."""
    return {key.split(".")[0] for key, value in after.items() if not torch.equal(value, before[key])}


# -- who learns --------------------------------------------------------------------------------


def test_each_stage_changes_the_adapters_of_its_roles_and_no_others() -> None:
    run = build(EXECUTOR, PLANNER, JOINT)
    base = frozen(run.model)
    states = [run.model.weights.state()]
    run.on_stage_end = lambda stage: states.append(run.model.weights.state())
    run.train()
    assert [changed(a, b) for a, b in pairwise(states)] == [{"executor"}, {"planner"}, set(ROLES)]
    assert all(torch.equal(p, base[name]) for name, p in frozen(run.model).items())
    rows = run.metrics.rows
    assert [row["stage"] for row in rows] == ["executor"] * 2 + ["planner"] * 2 + ["joint"] * 2
    assert all(
        ("loss_planner" in row, "loss_executor" in row) == (i > 1, i not in (2, 3)) for i, row in enumerate(rows)
    )
    assert all(row[f"logp_gap_{role}"] < TOLERANCE for row in rows for role in ROLES if f"loss_{role}" in row)


@pytest.mark.parametrize("trained", ROLES)
def test_under_joint_weights_the_frozen_roles_tokens_carry_no_loss(trained: Role) -> None:
    """The update is the same, to the bit, when the frozen role's conversations are taken out of the episodes."""
    frozen = "planner" if trained == "executor" else "executor"
    stage = Stage(name="one", trains=(trained,), iterations=1, learning_rate=0.01)
    whole, without = (build(stage, model=random_model("joint", seed=1)) for _ in range(2))
    taken: list[int] = []
    watch(without, lambda episodes: taken.extend(len(e.conversations.pop(frozen).segments) for e in episodes))
    before = whole.model.weights.state()
    whole.train()
    without.train()
    assert min(taken) > 2
    assert changed(before, whole.model.weights.state()) == {"joint"}
    assert not changed(whole.model.weights.state(), without.model.weights.state())
    assert whole.metrics.rows[0][f"loss_{trained}"] == without.metrics.rows[0][f"loss_{trained}"]


@pytest.mark.parametrize(("mode", "shared"), [("joint", "together"), ("partial", "always")])
def test_the_anchor_measures_each_role_with_its_own_weights(
    mode: WeightMode, shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any update, the KL term is zero for the trained role and for the frozen role that shares its weights."""
    terms: list[tuple[Role, float]] = []
    kl_term = Learner._kl_term

    def noted(self: Learner, role: Role, *given: Any) -> Any:
        found = kl_term(self, role, *given)
        terms.append((role, abs(found.item())))
        return found

    monkeypatch.setattr(Learner, "_kl_term", noted)
    stage = replace_stage(EXECUTOR, plans="self", kl=0.1, iterations=1)
    build(stage, model=random_model(mode, seed=1, adapters=0.1, shared=shared), updates=1).train()
    assert {role for role, _ in terms} == {"executor", "planner"}
    assert max(value for _, value in terms) < 1e-5


def test_all_roles_are_scored_before_any_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    """In half precision the old log-probabilities are computed anew: of the weights that sampled, not of later ones."""
    calls: list[str] = []
    for name in ("rescored", "update"):
        real = getattr(Learner, name)
        monkeypatch.setattr(Learner, name, lambda *given, real=real, name=name: calls.append(name) or real(*given))
    build(
        Stage(name="both", trains=ROLES, iterations=1, learning_rate=0.01), model=random_model("joint", seed=1)
    ).train()
    assert calls == ["rescored", "rescored", "update", "update"]


def test_no_difference_no_lesson() -> None:
    """Where all episodes of a group earn the same, nothing moves."""

    class Indifferent(Letters):
        def step(self, action: str) -> Any:
            return replace(super().step(action), reward=0.5)

    run = build(replace_stage(EXECUTOR, rewards=RewardWeights(format=0.0)), make_env=Indifferent)
    before = run.model.weights.state()
    run.train()
    assert not changed(before, run.model.weights.state())
    assert [row["zero_variance_executor"] for row in run.metrics.rows] == [1.0, 1.0]
    assert "loss_executor" not in run.metrics.rows[0]


def test_decisions_without_advantage_count_in_the_denominator_and_in_the_entropy() -> None:
    """A credit function that gives 1 to every other episode: the first loss is minus the share of their tokens."""

    def every_other(decisions: Sequence[Decision]) -> Floats:
        return np.array([float(one.episode % 2) for one in decisions])

    losses = {}
    for drop in (False, True):
        algorithm = Algorithm(credit=every_other, drop_zero=drop)
        run = build(replace_stage(EXECUTOR, iterations=1), algorithm=algorithm, updates=1, action_tokens=8)
        episodes: list[Episode] = []
        watch(run, episodes.extend)
        run.train()
        (row,) = run.metrics.rows
        losses[drop] = row["loss_executor"]
        said = [e.conversations["executor"].answers() for e in episodes]
        tokens = [sum(len(s.ids) for s in answers) for answers in said]
        surprise = -sum(p for answers in said for s in answers for p in s.logprobs)
        assert row["entropy_executor"] == pytest.approx(surprise / sum(tokens), abs=1e-5)
    assert losses[True] == pytest.approx(-1.0, abs=1e-5)
    assert losses[False] == pytest.approx(-sum(tokens[1::2]) / sum(tokens), abs=1e-5)
    assert -0.9 < losses[False] < -0.1


def replace_stage(stage: Stage, **changes: Any) -> Stage:
    return stage.model_copy(update=changes)


def test_an_optimizer_begins_anew_in_each_stage() -> None:
    run = build(EXECUTOR, JOINT, updates=2)
    steps = []

    def on_iteration(row: dict[str, Any]) -> None:
        for optimizer in run.learner.optimizers.values():
            steps.append({int(state["step"]) for state in optimizer.state.values()})

    run.on_iteration = on_iteration
    run.train()
    assert steps == [{2}, {4}, {2}, {2}, {4}, {4}]  # two updates an iteration


# -- learning ----------------------------------------------------------------------------------


def rise(run: ProgressiveTrainer, key: str) -> tuple[float, float]:
    """The mean of a metric over the first and the last four iterations."""
    values = [row[key] for row in run.metrics.rows]
    return sum(values[:4]) / 4, sum(values[-4:]) / 4


@pytest.mark.parametrize("mode", ["split", "joint"])
@pytest.mark.parametrize("algorithm", ["grpo", {"credit": "loo"}, "rejection"], ids=str)
def test_an_executor_learns_a_trivial_task_in_seconds(mode: str, algorithm: Any) -> None:
    stage = Stage(name="executor", trains=("executor",), plans="none", iterations=40, learning_rate=0.01)
    run = build(
        stage, model=random_model(mode, seed=1), tasks=[letters(1)], config={"algorithm": algorithm},
        groups=4, group_size=8, action_tokens=2, turns=1,
    )  # fmt: skip
    run.train()
    first, last = rise(run, "success")
    assert first + 0.1 < last > 0.85


def test_a_planner_learns_to_write_what_can_be_read() -> None:
    def read(text: str) -> Plan:
        if not "a" <= text[:1].lower() <= "m":
            raise PlanFormatError("begin with a letter up to m")
        return Plan(steps=(PlanStep(id=1, description=text),))

    model = random_model(seed=1)
    model.prompts = replace(BRIEF, format=PlanFormat("letters", read, render_numbered))
    only_format = RewardWeights(outcome=0.0, format=1.0)
    stage = Stage(name="planner", trains=("planner",), iterations=25, learning_rate=0.01, rewards=only_format)
    run = build(stage, model=model, tasks=[letters(1)], groups=4, group_size=8, plan_tokens=2, turns=1)
    run.train()
    first, last = rise(run, "reward_planner")
    assert first < 0.6 < 0.85 < last


def test_the_anchor_holds_the_policy_near_the_stages_start() -> None:
    drifts = {}
    for kl in (0.0, 3.0):
        run = build(replace_stage(EXECUTOR, kl=kl, iterations=6), action_tokens=2)
        start = run.model.weights.state()
        run.train()
        drifts[kl] = sum((v - start[k]).square().sum().item() for k, v in run.model.weights.state().items())
        if kl:
            assert all(row["kl_executor"] >= 0 for row in run.metrics.rows)
            assert run.metrics.rows[0]["kl_executor"] < run.metrics.rows[-1]["kl_executor"]
    assert 0 < drifts[3.0] < drifts[0.0]


def test_under_joint_weights_the_anchor_holds_the_frozen_role_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def drift(kl: float) -> float:
        stage = replace_stage(EXECUTOR, plans="self", kl=kl, iterations=6)
        run = build(stage, model=random_model("joint", seed=1))
        run.train()
        return float(run.metrics.rows[-1]["drift_planner"])

    free, held = drift(0.0), drift(6.0)
    monkeypatch.setattr(Learner, "anchor_rows", lambda *given: [])
    executor_alone = drift(6.0)
    assert 0 < held < 0.7 * executor_alone < free


# -- what is rolled out ------------------------------------------------------------------------


def test_a_group_shares_task_and_plan_and_every_episode_has_a_seed_of_its_own() -> None:
    run = build(replace_stage(EXECUTOR, iterations=3), tasks=[letters(2, k=k) for k in range(9)], groups=5)
    jobs = watch(run)
    run.train()
    groups = [jobs[i : i + 4] for i in range(0, len(jobs), 4)]
    assert len(groups) == 15
    for group in groups:
        assert len({job.task.id for job in group}) == 1 == len({id(job.planner) for job in group})
    assert len({group[0].task.id for group in groups}) > 4
    assert len({job.seed for job in jobs}) == len(jobs)


@pytest.mark.parametrize(("trains", "share", "expected"), [
    (("executor",), 0.0, 0.0), (("executor",), 1.0, 1.0), (("executor",), 0.3, 0.3), (("planner",), 0.3, 0.0),
])  # fmt: skip
def test_a_share_of_groups_runs_without_a_plan_while_the_executor_learns(
    trains: tuple[Role, ...], share: float, expected: float
) -> None:
    stage = Stage(name="s", trains=trains, plans="oracle", iterations=2, no_plan=share)
    run = build(stage, groups=60, group_size=2, action_tokens=1, turns=1)
    jobs = watch(run)
    run.train()
    bare = [isinstance(job.planner, NoPlanner) for job in jobs]
    assert sum(bare) / len(bare) == pytest.approx(expected, abs=0.12 if 0 < expected < 1 else 0)
    assert bare[::2] == bare[1::2]  # whole groups


def test_groups_that_agree_are_refilled_and_their_steps_are_counted() -> None:
    easy = Task(env="letters", params={"turns": 1, "easy": True})

    def make_env(task: Task) -> Letters:
        env = Letters(task)
        if "easy" in task.params:
            env.step = lambda action: replace(Letters.step(env, "a"), refused=False)  # type: ignore[method-assign]
        return env

    stage = replace_stage(EXECUTOR, plans="none", iterations=1)
    settings = {"tasks": [easy, letters(1)], "make_env": make_env, "groups": 8, "turns": 1, "action_tokens": 2}
    first = build(stage, **settings)
    played = watch(first)
    first.train()
    once = len(played)
    run = build(stage, resample=2, **settings)
    jobs = watch(run)
    run.train()
    row = run.metrics.rows[0]
    assert row["episodes"] == row["env_steps"] == len(jobs) > once == 8 * 4
    assert row["episodes"] <= 3 * once


def test_a_stage_ends_when_the_steps_are_spent() -> None:
    run = build(replace_stage(EXECUTOR, iterations=50, env_steps=60), replace_stage(PLANNER, iterations=1))
    run.train()
    taken = [row["env_steps"] for row in run.metrics.rows if row["stage"] == "executor"]
    assert taken[-1] >= 60 > taken[-2]
    assert run.metrics.rows[-1]["stage"] == "planner"


def test_a_failing_environment_is_recorded_and_training_goes_on() -> None:
    tasks = [TWO, letters(2, broken=True), Task(env="letters", params={"turns": "none"})]
    run = build(replace_stage(EXECUTOR, iterations=3), tasks=tasks, groups=9)
    before = run.model.weights.state()
    run.train()
    rows = run.metrics.rows
    assert len(rows) == 3 and all(0 < row["faults"] < row["episodes"] for row in rows)
    assert changed(before, run.model.weights.state()) == {"executor"}
    assert "loss_executor" in rows[-1]


def test_training_goes_on_when_every_episode_fails() -> None:
    run = build(EXECUTOR, tasks=[Task(env="letters", params={"turns": "none"})])
    before = run.model.weights.state()
    run.train()
    assert [row["faults"] for row in run.metrics.rows] == [12, 12]
    assert not changed(before, run.model.weights.state())


def test_faulty_episodes_are_no_examples() -> None:
    """An episode that broke off with part of its reward is left out of rewards and statistics."""
    run = build(replace_stage(EXECUTOR, iterations=1), tasks=[letters(2, broken=True)])
    run.train()
    (row,) = run.metrics.rows
    assert row["faults"] == row["episodes"] and "reward_executor" not in row


# -- where plans come from ---------------------------------------------------------------------

SAY_A = Plan(goal="say", steps=(PlanStep(id=1, description="say a"),))


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


def test_one_process_has_nothing_to_split_its_weights_over() -> None:
    with pytest.raises(ConfigError, match="accelerate launch"):
        build(EXECUTOR, shard=True)


def test_a_stage_without_its_plan_file_says_so() -> None:
    with pytest.raises(ConfigError, match=r"'executor' takes its plans from a file; set train\.plan_file"):
        build(replace_stage(EXECUTOR, plans="file"))
    with pytest.raises(ConfigError, match="no plan file at"):
        build(replace_stage(EXECUTOR, plans="file"), plan_file="nowhere.jsonl")


# -- stopping and going on ---------------------------------------------------------------------


class Stopped(BaseException):
    """Stands for a person's Ctrl-C or a lost machine."""


STAGES = (
    replace_stage(EXECUTOR, iterations=3, no_plan=0.3),
    replace_stage(PLANNER, iterations=3, kl=0.1),  # one checkpoint in its midst, one at its end
    replace_stage(JOINT, iterations=2),
)


def files(folder: Path) -> dict[str, bytes]:
    """All that must not depend on interruptions."""
    kept = [folder / "metrics.jsonl", *folder.glob("checkpoints/*/*")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}


@pytest.fixture(scope="module", params=["split", "joint"])
def unbroken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    build(*STAGES, model=random_model(request.param, seed=1), folder=folder).train()
    return request.param, folder


@pytest.mark.parametrize("stops", [(0,), (2,), (3,), (5,), (7,), (1, 3, 6), (2, 2, 2)], ids=str)
def test_a_stopped_run_goes_on_to_the_same_end(
    unbroken: tuple[str, Path], stops: tuple[int, ...], tmp_path: Path
) -> None:
    mode, expected = unbroken
    for stop in stops:  # in the iteration with that number, after its update and before its checkpoint
        run = build(*STAGES, model=random_model(mode, seed=1), folder=tmp_path)

        def on_iteration(row: dict[str, Any], stop: int = stop) -> None:
            if row["iteration"] == stop:
                raise Stopped

        run.on_iteration = on_iteration
        with pytest.raises(Stopped):
            run.train()
    last = build(*STAGES, model=random_model(mode, seed=1), folder=tmp_path)
    assert last.resumed == (stops[-1] > 1)
    last.train()
    assert files(tmp_path) == files(expected)
    assert [row["iteration"] for row in last.metrics.rows] == list(range(8))


def test_a_finished_run_has_nothing_left_to_do(unbroken: tuple[str, Path]) -> None:
    mode, folder = unbroken
    before = files(folder)
    run = build(*STAGES, model=random_model(mode, seed=1), folder=folder)
    jobs = watch(run)
    run.train()
    assert not jobs and files(folder) == before


def test_a_checkpoint_of_another_run_is_refused(unbroken: tuple[str, Path]) -> None:
    mode, folder = unbroken
    with pytest.raises(CheckpointError, match="seed 0, not 1"):
        build(*STAGES, model=random_model(mode, seed=1), folder=folder, seed=1)
    with pytest.raises(CheckpointError, match="rank 2"):
        build(*STAGES, model=random_model(mode, seed=1, rank=2), folder=folder)
    other = random_model("joint" if mode == "split" else "split", seed=1)
    with pytest.raises(CheckpointError, match="other weights"):
        build(*STAGES, model=other, folder=folder)


def test_a_run_needs_no_folder_and_repeats_itself(unbroken: tuple[str, Path]) -> None:
    mode, folder = unbroken
    run = build(*STAGES, model=random_model(mode, seed=1))
    run.train()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert json.loads(json.dumps(run.metrics.rows)) == rows


def test_another_seed_is_another_run(unbroken: tuple[str, Path]) -> None:
    mode, folder = unbroken
    run = build(*STAGES, model=random_model(mode, seed=1), seed=5)
    run.train()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(
        mine["loss_executor"] != theirs["loss_executor"]
        for mine, theirs in zip(run.metrics.rows[:3], rows, strict=False)
    )


def test_a_warm_start_comes_before_the_first_stage_and_is_not_repeated(tmp_path: Path) -> None:
    settings = {"tasks": [letters(n, k=k) for n in (1, 2) for k in range(4)], "warm_start": 8, "folder": tmp_path}
    whole = build(*STAGES, **(settings | {"folder": None}))
    cold = whole.model.weights.state()
    whole.train()
    first = whole.metrics.rows[0]
    assert first["kind"] == "warm start" and first["loss_planner"] > 0 and first["loss_executor"] > 0
    assert [row["kind"] for row in whole.metrics.rows[1:]] == ["train"] * 8
    assert changed(cold, {k.removeprefix("start."): v for k, v in whole.learner.start.items()}) == set(ROLES)
    for stop in (0, 2):
        run = build(*STAGES, **settings)
        run.save()  # as a job does, which measures the base first

        def on_iteration(row: dict[str, Any], stop: int = stop) -> None:
            if row["iteration"] == stop:
                raise Stopped

        run.on_iteration = on_iteration
        with pytest.raises(Stopped):
            run.train()
    last = build(*STAGES, **settings)
    last.train()
    assert last.metrics.rows == whole.metrics.rows
    assert not changed(whole.model.weights.state(), last.model.weights.state())


# -- checkpoints -------------------------------------------------------------------------------


def test_a_save_that_is_cut_short_anywhere_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop ``save_state`` at each call that touches the disk in turn; the newest whole one is the old or the new."""
    old, new = {"a": torch.zeros(3)}, {"a": torch.ones(3)}
    places = [(checkpoint, "save_tensors"), (Path, "write_text"), (checkpoint.os, "fsync"), (checkpoint.os, "replace")]
    outcomes, left = [], 0

    def until_spent(real: Any) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Stopped
            return real(*given, **options)

        return call

    for stop in range(20):
        folder, left, finished = tmp_path / str(stop), stop, False
        checkpoint.save_state(folder / "000001-0", old, {"n": 1})
        with monkeypatch.context() as patch, suppress(Stopped):
            for place, name in places:
                patch.setattr(place, name, until_spent(getattr(place, name)))
            checkpoint.save_state(folder / "000002-0", new, {"n": 2})
            finished = True
        newest = checkpoint.latest(folder)
        assert newest is not None
        tensors, state = checkpoint.load_state(newest)
        assert torch.equal(tensors["a"], old["a"] if state["n"] == 1 else new["a"])
        checkpoint.save_state(folder / "000002-0", new, {"n": 2})  # what the cut one left is no hindrance
        checkpoint.prune(folder, keep=1)
        assert [p.name for p in folder.glob("[0-9]*")] == ["000002-0"]
        outcomes.append(state["n"])
        if finished:
            break
    assert finished and outcomes == sorted(outcomes) and set(outcomes) == {1, 2} and len(outcomes) > 5


def test_equal_states_give_equal_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.zeros(2)}
    for name, given in (("1", tensors), ("2", dict(reversed(tensors.items())))):
        checkpoint.save_state(tmp_path / name, given, {"y": 1, "x": [2.5]})
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in "12")
    assert one == two and set(one) == {"state.json", "state.safetensors"}


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        checkpoint.load_state(tmp_path / "nowhere")
    checkpoint.save_state(tmp_path / "1", {"a": torch.zeros(1)}, {})
    (tmp_path / "1" / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        checkpoint.load_state(tmp_path / "1")
