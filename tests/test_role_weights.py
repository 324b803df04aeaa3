"""Adapters of two roles on one base: saved, merged, switched and trained without touching each other."""

from pathlib import Path

import pytest
import torch
from doubles import random_model
from peft import PeftModel
from talks import logits, write
from transformers import LlamaForCausalLM

from hiplan.errors import CheckpointError
from hiplan.models.adapters import load_weights, save_weights
from hiplan.trace import ROLES, Role


@pytest.mark.parametrize("mode", ["split", "joint", "partial", "separate"])
def test_saved_adapters_come_back_bit_for_bit(mode: str, tmp_path: Path) -> None:
    model, other = random_model(mode, adapters=0.1), random_model(mode, seed=7)
    save_weights(model.weights, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == sorted(
        set(sum(model.weights.units.values(), ()))
    )
    load_weights(other.weights, tmp_path)
    for key, value in model.weights.state().items():
        assert torch.equal(other.weights.state()[key], value), key
    with pytest.raises(CheckpointError, match="lora_alpha 8, expected 4"):
        load_weights(random_model(mode, rank=2).weights, tmp_path)
    with pytest.raises(CheckpointError, match="no weights at"):
        load_weights(random_model("split" if mode == "joint" else "joint").weights, tmp_path)


@pytest.mark.parametrize("role", ROLES)
def test_a_saved_adapter_is_a_plain_peft_adapter(role: Role, tmp_path: Path) -> None:
    model = random_model(adapters=0.1)
    save_weights(model.weights, tmp_path)
    base = LlamaForCausalLM(model.weights.bodies[0].model.get_base_model().config).eval()
    base.load_state_dict(model.weights.bodies[0].plain.state_dict())
    plain = PeftModel.from_pretrained(base, str(tmp_path / role)).eval()
    ids = list(range(5, 40))
    with model.weights.acting_as(role) as active:
        assert torch.equal(logits(plain, ids), logits(active, ids))


def test_acting_as_a_role_restores_everything_even_after_an_error() -> None:
    weights = random_model().weights
    weights.train_only(("planner",))
    flags = {name: p.requires_grad for name, p in weights.bodies[0].model.named_parameters()}
    active = list(weights.bodies[0].model.active_adapters)
    for role in ROLES:
        with pytest.raises(ZeroDivisionError), weights.acting_as(role) as model:
            assert model.active_adapters == [role]
            assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
            with weights.acting_as("planner"), weights.acting_as("executor") as inner:
                assert inner.active_adapters == ["executor"]
            assert model.active_adapters == [role]
            raise ZeroDivisionError
        assert {name: p.requires_grad for name, p in weights.bodies[0].model.named_parameters()} == flags
        assert weights.bodies[0].model.active_adapters == active
    assert any(flags.values())
    assert all(flag == ("planner" in name and "lora" in name) for name, flag in flags.items())


def test_a_merged_copy_answers_as_the_adapter_does_and_leaves_it_alone() -> None:
    weights, ids = random_model(adapters=0.1).weights, list(range(5, 60))
    before = {name: p.detach().clone() for name, p in weights.bodies[0].model.named_parameters()}
    for role in ROLES:
        merged = weights.merged(role)
        assert merged is weights.merged(role)
        assert torch.equal(logits(weights.snapshot(role), ids), logits(merged, ids))
        with weights.acting_as(role) as active:
            torch.testing.assert_close(logits(merged, ids), logits(active, ids), rtol=0, atol=1e-4)
    assert not torch.allclose(logits(weights.merged("planner"), ids), logits(weights.merged("executor"), ids), atol=0.1)
    assert all(torch.equal(p, before[name]) for name, p in weights.bodies[0].model.named_parameters())


def test_merging_again_and_again_does_not_drift() -> None:
    weights = random_model(adapters=0.1).weights
    plain = {name: p.detach().clone() for name, p in weights.bodies[0].model.get_base_model().named_parameters()}
    for factor in (1.5, -2.0, 1 / 3, 0.0):  # at the end there is nothing to add to the base
        weights.merged("planner")
        weights.load_state({key: factor * value for key, value in weights.state().items()})
    for name, value in weights.merged("planner").named_parameters():
        inside = name if name in plain else name.replace(".weight", ".base_layer.weight")
        assert torch.equal(value, plain[inside]), name


def test_training_one_role_is_not_felt_by_the_other_under_split_weights() -> None:
    model = random_model(adapters=0.1)
    ids = list(range(5, 40))
    planner, executor = (logits(model.weights.merged(role), ids) for role in ROLES)
    write(model, "AdamW")
    assert torch.equal(logits(model.weights.merged("planner"), ids), planner)
    assert not torch.allclose(logits(model.weights.merged("executor"), ids), executor, atol=0.1)


def test_under_joint_weights_both_roles_are_one_adapter() -> None:
    weights = random_model("joint", adapters=0.1).weights
    mine, theirs = weights.parameters("planner"), weights.parameters("executor")
    assert all(theirs[name] is p for name, p in mine.items()) and weights.merged("planner") is weights.merged(
        "executor"
    )
    weights.train_only(("executor",))
    assert all(p.requires_grad for p in mine.values())
