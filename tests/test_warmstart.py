"""Warm starts: demonstrations become the rows a model would have had, and only the asked role learns from them."""

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import trl.trainer.base_trainer
from doubles import Letters, frozen, letters, random_model
from torch import Tensor

from hiplan.coordination import Limits
from hiplan.env import EnvFactory
from hiplan.envs import TaskSuite, make_env, train_mix
from hiplan.errors import ConfigError
from hiplan.executors import Executor
from hiplan.model import Decoding, ScriptedModel
from hiplan.models.local import LocalModel
from hiplan.planners import NoPlanner, Planner
from hiplan.prompts import BRIEF, FULL, Prompts
from hiplan.sampler import Job, Sampler
from hiplan.task import Task
from hiplan.trace import ROLES, Conversation, Episode, Role
from hiplan.training.batch import Row, batches, token_logprobs
from hiplan.training.config import Stage, TrainConfig
from hiplan.training.trainer import ProgressiveTrainer
from hiplan.training.warmstart import demonstration_rows, oracle_demonstrations, warm_start

TASKS = [letters(1 + k % 2, k=k) for k in range(8)]


def real_tasks(n: int) -> list[Task]:
    rng, mix = random.Random(3), train_mix()
    return [mix(rng) for _ in range(n)]


def oracle(prompts: Prompts = BRIEF, make: EnvFactory = make_env, turns: int = 30) -> Sampler:
    return Sampler(ScriptedModel([], prompts), make, limits=Limits(turns=turns))


@pytest.fixture(scope="module")
def demonstrations() -> list[Episode]:
    return oracle_demonstrations(TASKS, oracle(BRIEF, Letters), no_plan=0.25)


def nll(model: LocalModel, episodes: Sequence[Episode], role: Role) -> float:
    """Mean negative log-likelihood of the role's own tokens."""
    total, count = 0.0, 0
    with model.weights.acting_as(role) as active, torch.no_grad():
        for ids, labels in demonstration_rows(model, episodes, role):
            row = Row(ids, [label >= 0 for label in labels], [0.0] * len(ids), [0.0] * len(ids))
            (batch,) = batches([row], 10_000, torch.device("cpu"))
            total -= token_logprobs(active, batch)[batch.mask].sum().item()
            count += int(batch.mask.sum())
    return total / count


def adapters_changed(before: dict[str, Tensor], model: LocalModel) -> set[str]:
    return {key.split(".")[0] for key, value in model.weights.state().items() if not torch.equal(value, before[key])}


# -- demonstrations ----------------------------------------------------------------------------


@pytest.mark.parametrize("prompts", [BRIEF, FULL], ids=lambda p: p.name)
def test_what_an_oracle_is_written_down_as_is_what_a_model_would_have_written(prompts: Prompts) -> None:
    """The language-model planner and executor, told to say the same, leave the same conversations and episodes."""
    demonstrations = oracle_demonstrations(real_tasks(24), oracle(prompts), no_plan=0.25)
    assert any(len(e.plans) > 1 for e in demonstrations)  # some plans were revised
    for shown in demonstrations:

        def say(conversation: Conversation, shown: Episode = shown) -> str:
            return shown.conversations[conversation.role].segments[len(conversation.segments)].text

        planner = Planner(prompts) if "planner" in shown.conversations else NoPlanner()
        job = Job(shown.task, planner, Executor(prompts))
        (spoken,) = Sampler(ScriptedModel(say), make_env).run([job])
        for role in ROLES:
            mine, theirs = (e.conversations.get(role) for e in (shown, spoken))
            assert (mine and mine.segments) == (theirs and theirs.segments)
        assert [t.action for t in spoken.turns] == [t.action for t in shown.turns]
        written = [x.text for x in shown.conversations["executor"].segments if x.author == "assistant"]
        assert written == [prompts.render_action(turn.action) for turn in shown.turns]
        assert [r.plan and r.plan.steps for r in spoken.plans] == [r.plan and r.plan.steps for r in shown.plans]


def test_demonstrations_are_successes_and_some_have_no_plan() -> None:
    tasks = real_tasks(20)
    episodes = oracle_demonstrations(tasks, oracle(), no_plan=0.25)
    assert len(episodes) > 15 and all(e.success for e in episodes)
    bare = [e.task for e in episodes if "planner" not in e.conversations]
    assert {task.id for task in bare} <= {tasks[i].id for i in (3, 7, 11, 15, 19)}
    assert all("planner" in e.conversations for e in oracle_demonstrations(tasks, oracle(), no_plan=0.0))


def test_an_environment_without_an_oracle_is_refused() -> None:
    class Blind(Letters):
        oracle_plan = None  # type: ignore[assignment]
        oracle_action = None  # type: ignore[assignment]

    with pytest.raises(ConfigError, match=r"solved none of 8 tasks \(environments: letters\)"):
        oracle_demonstrations(TASKS, oracle(BRIEF, Blind))
    with pytest.raises(ConfigError, match="solved none of 4 tasks within 1 turns; raise turns"):
        oracle_demonstrations([letters(2)] * 4, oracle(BRIEF, Letters, turns=1))


# -- rows --------------------------------------------------------------------------------------


def test_rows_of_text_are_those_of_the_chat_template(demonstrations: list[Episode]) -> None:
    model = random_model(window=4096)
    shown = demonstrations + oracle_demonstrations(real_tasks(6), oracle())
    for conversation in (c for e in shown for c in e.conversations.values()):
        rendered = model.specs["executor"].tokenizer.apply_chat_template(
            [{"role": s.author, "content": s.text} for s in conversation.segments],
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        ids, own = model.specs["executor"].codec.row(conversation)
        assert (ids, own) == (rendered["input_ids"], [bool(m) for m in rendered["assistant_masks"]])


def test_rows_of_sampled_conversations_keep_their_tokens() -> None:
    model = random_model()
    jobs = [Job(task, Planner(BRIEF), Executor(BRIEF), k) for k, task in enumerate(TASKS)]
    for episode in Sampler(model, Letters, Decoding(1.0, 5, 3)).run(jobs):
        for conversation in episode.conversations.values():
            (recorded,) = Row.of(conversation)
            assert model.specs["executor"].codec.row(conversation) == (recorded.ids, recorded.trained)


def test_reasoning_that_later_turns_did_not_see_is_learned_in_rows_of_its_own() -> None:
    conversation = Conversation("executor")
    conversation.ask("a", 0)
    conversation.answer("go", "action", 0, prompt_ids=(1, 2), ids=(3, 4, 5), logprobs=(0.0,) * 3, dropped=2)
    conversation.ask("b", 1)
    conversation.answer("on", "action", 1, prompt_ids=(6,), ids=(7, 8), logprobs=(0.0,) * 2)
    episode = Episode(letters(1), "", conversations={"executor": conversation})
    assert demonstration_rows(random_model(), [episode], "executor") == [
        ([1, 2, 3, 4, 5], [-100, -100, 3, 4, 5]),
        ([1, 2, 5, 6, 7, 8], [-100, -100, -100, -100, 7, 8]),
    ]


def test_cut_untrained_and_unanswered_text_carries_no_end_and_no_loss() -> None:
    codec = random_model().specs["executor"].codec
    conversation = Conversation("executor")
    conversation.ask("go", 0)
    conversation.answer("cut", "action", 0, finish="length")
    conversation.ask("go on", 1)
    conversation.answer("odd", "action", 1, trained=False)
    conversation.ask("go on", 2)
    conversation.answer("", "action", 2, finish="window")
    conversation.ask("and now?", 3)
    ids, own = codec.row(conversation)
    assert [i for i, o in zip(ids, own, strict=True) if o] == list(codec.content("cut"))
    after = own.index(True) + sum(own)
    assert ids[after] == codec.end_id and not own[after]
    assert codec.read(ids).text == "gocutgo onoddgo on"


# -- learning ----------------------------------------------------------------------------------


@pytest.mark.parametrize("roles", [("planner",), ("executor",), ROLES], ids=str)
def test_a_warm_start_makes_demonstrations_likelier_and_touches_the_asked_roles_alone(
    roles: tuple[Role, ...], demonstrations: list[Episode]
) -> None:
    model = random_model()
    before = {role: nll(model, demonstrations, role) for role in ROLES}
    state = model.weights.state()
    base = frozen(model)
    out = warm_start(model, demonstrations, roles, epochs=10, learning_rate=0.01, batch_size=4)
    for role in ROLES:
        after = nll(model, demonstrations, role)
        assert after < 0.5 * before[role] if role in roles else after == before[role]
    assert adapters_changed(state, model) == set(roles)
    assert all(torch.equal(p, base[name]) for name, p in frozen(model).items())
    assert set(out) == {f"{name}_{role}" for role in roles for name in ("loss", "tokens")}


def test_under_joint_weights_both_roles_learn_together(demonstrations: list[Episode]) -> None:
    model = random_model("joint")
    before = {role: nll(model, demonstrations, role) for role in ROLES}
    out = warm_start(model, demonstrations, epochs=10, learning_rate=0.01, batch_size=4)
    assert set(out) == {"loss_joint", "tokens_joint"}
    assert all(nll(model, demonstrations, role) < 0.5 * before[role] for role in ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_the_loss_is_over_the_roles_own_tokens_alone(role: Role, demonstrations: list[Episode]) -> None:
    model = random_model(adapters=0.1)
    out = warm_start(model, demonstrations, (role,), learning_rate=1e-12, batch_size=100)
    assert out[f"loss_{role}"] == pytest.approx(nll(model, demonstrations, role), abs=1e-4)
    answers = [s for e in demonstrations if role in e.conversations for s in e.conversations[role].segments]
    own = [s for s in answers if s.author == "assistant"]
    assert out[f"tokens_{role}"] == sum(len(model.specs["executor"].codec.content(s.text)) + 1 for s in own)


def test_what_was_taught_is_what_is_sampled(demonstrations: list[Episode]) -> None:
    model = random_model()
    jobs = [Job(task, NoPlanner(), Executor(BRIEF), k) for k, task in enumerate(TASKS)]

    def as_taught() -> float:
        played = Sampler(model, Letters, Decoding(0.0, 5, 3)).run(jobs)
        return sum(all(turn.action == "a" for turn in e.turns) for e in played) / len(jobs)

    before = as_taught()
    warm_start(model, demonstrations, ("executor",), epochs=20, learning_rate=0.02, batch_size=4)
    assert before < 0.8 < as_taught() == 1.0


def test_the_same_seed_gives_the_same_weights_to_the_bit(demonstrations: list[Episode]) -> None:
    states = []
    for seed in (0, 0, 1):
        model = random_model()
        warm_start(model, demonstrations, ("executor",), epochs=2, batch_size=3, seed=seed)
        states.append(model.weights.state())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert not all(torch.equal(value, states[2][key]) for key, value in states[0].items())


def test_a_warm_start_leaves_nothing_behind(
    demonstrations: list[Episode], capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(*given: Any, **options: Any) -> None:
        raise AssertionError("telemetry was sent")

    monkeypatch.setattr(trl.trainer.base_trainer, "send_telemetry", told)
    monkeypatch.delenv("CI", raising=False)
    model = random_model()
    monkeypatch.chdir(tmp_path)
    environment = dict(os.environ)
    stage = Stage(name="executor", trains=("executor",), plans="none", iterations=1)
    config = TrainConfig(stages=(stage,), groups=2, group_size=2, action_tokens=2, turns=1)
    trainer = ProgressiveTrainer(model, TaskSuite("letters", Letters, lambda rng: letters(1)), config=config)
    peft = model.weights.bodies[0].model
    base = peft.get_base_model()
    forward, active = base.forward, list(peft.active_adapters)
    capfd.readouterr()
    warm_start(model, demonstrations, batch_size=4)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir()) and dict(os.environ) == environment
    assert base.forward == forward and "forward" not in base.__dict__ and base.config.use_cache
    assert not peft.training and list(peft.active_adapters) == active
    assert not any(p.requires_grad for p in peft.parameters())
    trainer.train()  # its accelerator, made before, still works
    assert len(trainer.metrics.rows) == 1


def test_a_role_that_wrote_nothing_cannot_be_taught(demonstrations: list[Episode]) -> None:
    model = random_model()
    bare = [e for e in demonstrations if "planner" not in e.conversations]
    with pytest.raises(ConfigError, match="the 2 demonstrations have no answer by the planner"):
        warm_start(model, bare, ("planner",))
    warm_start(model, bare, ("executor",))


def test_rows_end_at_the_window(demonstrations: list[Episode]) -> None:
    model = random_model(window=20)
    rows = demonstration_rows(model, demonstrations, "executor")
    assert max(len(ids) for ids, _ in rows) == 20
    warm_start(model, demonstrations, ("executor",))
