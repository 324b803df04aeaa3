"""The progressive trainer on a trivial environment: who learns, and that it learns."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from doubles import Letters, frozen, letters, random_model
from torch import Tensor
from trainers import EXECUTOR, JOINT, PLANNER, build, changed, replace_stage, watch

from hiplan.errors import ConfigError, PlanFormatError
from hiplan.formats import PlanFormat, render_numbered
from hiplan.models.settings import WeightMode
from hiplan.plan import Plan, PlanStep
from hiplan.prompts import BRIEF
from hiplan.trace import ROLES, Conversation, Episode, Role
from hiplan.training.algorithm import Algorithm, Updates
from hiplan.training.config import Stage
from hiplan.training.credit import Decision, Floats
from hiplan.training.losses import clipped_loss
from hiplan.training.rewards import RewardWeights
from hiplan.training.trainer import ProgressiveTrainer

TOLERANCE = 2e-4  # between recorded and recomputed log-probabilities, as in talks.py


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
def test_the_anchor_measures_each_role_with_its_own_weights(mode: WeightMode, shared: str) -> None:
    """Before anything has moved, the anchor pulls neither the role that learns nor the one that shares its weights."""

    def nothing(decisions: Sequence[Decision]) -> Floats:
        return np.zeros(len(decisions))

    def trained(algorithm: Algorithm, updates: int, forget: bool = False) -> ProgressiveTrainer:
        stage = replace_stage(EXECUTOR, plans="self", kl=0.1, iterations=1)
        model = random_model(mode, seed=1, adapters=0.1, shared=shared)
        run = build(stage, model=model, updates=updates, algorithm=algorithm)
        if forget:
            watch(run, lambda episodes: [episode.conversations.pop("planner") for episode in episodes] and None)
        run.train()
        return run

    (row,) = trained(Algorithm(credit=nothing), updates=1).metrics.rows
    assert row["kl_executor"] < 1e-5 and row["gradient_executor"] < 1e-5
    both, alone = (trained(Algorithm(), updates=2, forget=forget) for forget in (False, True))
    differ = changed(both.model.weights.state(), alone.model.weights.state())
    assert differ, "the planner is anchored once it has moved"


def test_all_roles_are_scored_before_any_learns() -> None:
    """In half precision the old log-probabilities are computed anew: of the weights that sampled, not of later ones."""

    def played(order: Sequence[Role]) -> dict[Role, list[tuple[Tensor, Tensor]]]:
        """Old and new log-probabilities of each batch, by role, where the roles are updated in this order."""
        found: dict[Role, list[tuple[Tensor, Tensor]]] = {}

        def schedule(updates: Updates) -> None:
            for role in order:
                found[role] = []
                updates.update(role)

        def loss(logp: Tensor, logp_old: Tensor, advantage: Tensor, mask: Tensor, denominator: float) -> Tensor:
            found[list(found)[-1]].append((logp_old[mask], logp.detach()[mask]))
            return clipped_loss(logp, logp_old, advantage, mask, denominator=denominator)

        stage = Stage(name="both", trains=ROLES, iterations=1, learning_rate=0.01)
        model = random_model("joint", seed=1, dtype=torch.bfloat16)
        build(stage, model=model, algorithm=Algorithm(schedule=schedule, loss=loss)).train()
        return found

    one, other = played(ROLES), played(ROLES[::-1])
    for role in ROLES:
        pairs = list(zip(one[role], other[role], strict=True))
        assert len(pairs) > 1 and all(torch.equal(old, same) for (old, _), (same, _) in pairs)
        assert not torch.equal(pairs[0][0][1], pairs[0][1][1]), "the other role's update has moved the weights"


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


def test_an_optimizer_begins_anew_in_each_stage() -> None:
    run = build(EXECUTOR, JOINT, updates=2)
    steps = []

    def on_iteration(row: dict[str, Any]) -> None:
        for optimizer in run.learner.optimizers.values():
            steps.append({int(state["step"]) for state in optimizer.state.values()})

    run.on_iteration = on_iteration
    run.train()
    assert steps == [{2}, {4}, {2}, {2}, {4}, {4}]  # two updates an iteration


def test_one_process_has_nothing_to_split_its_weights_over() -> None:
    with pytest.raises(ConfigError, match="accelerate launch"):
        build(EXECUTOR, shard=True)


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


def test_under_joint_weights_the_anchor_holds_the_frozen_role_too() -> None:
    def drift(kl: float, forget: bool = False) -> float:
        """How far the planner moves; ``forget``: while its conversations are taken out of the episodes."""
        stage = replace_stage(EXECUTOR, plans="self", kl=kl, iterations=6)
        run = build(stage, model=random_model("joint", seed=1))
        taken: list[Conversation] = []
        last: list[Episode] = []

        def keep(episodes: list[Episode]) -> None:
            last[:] = episodes
            taken[:] = [episode.conversations.pop("planner") for episode in episodes] if forget else []

        watch(run, keep)
        run.train()
        for episode, conversation in zip(last, taken, strict=False):
            episode.conversations["planner"] = conversation
        return float(run.learner.drift(last)["drift_planner"])

    free, held, executor_alone = drift(0.0), drift(6.0), drift(6.0, forget=True)
    assert 0 < held < 0.7 * executor_alone < free
