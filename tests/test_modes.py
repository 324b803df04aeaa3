"""Four weight modes behind one interface: who learns, what is guarded, and what leaves hiplan."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles import frozen, random_model
from peft import PeftModel
from trainers import EXECUTOR, JOINT, PLANNER, build, changed
from transformers import AutoModelForCausalLM

from hiplan.errors import ConfigError, InternalError
from hiplan.models.adapters import export_weights, load_weights, save_weights
from hiplan.models.convert import converted
from hiplan.models.local import LocalModel
from hiplan.models.settings import UNITS, WeightMode, WeightsConfig
from hiplan.models.weights import RoleWeights
from hiplan.trace import ROLES, Role

IDS = list(range(5, 40))
MODES: tuple[WeightMode, ...] = ("joint", "split", "partial", "separate")
LEARNS = {  # what each stage may change
    "joint": [{"joint"}, {"joint"}, {"joint"}],
    "split": [{"executor"}, {"planner"}, {"planner", "executor"}],
    "partial": [{"executor"}, {"planner"}, {"shared", "planner", "executor"}],
    "partial always": [{"shared", "executor"}, {"shared", "planner"}, {"shared", "planner", "executor"}],
    "separate": [{"executor"}, {"planner"}, {"planner", "executor"}],
}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(input_ids=torch.tensor([IDS])).logits[0]
    return out


def answers(weights: RoleWeights) -> list[torch.Tensor]:
    """What planner and executor make of the same tokens."""
    out = []
    for role in ROLES:
        with weights.acting_as(role) as active:
            out.append(logits(active))
    return out


# -- who learns --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", LEARNS)
def test_each_stage_changes_what_the_mode_says_and_nothing_else(case: str) -> None:
    mode, _, always = case.partition(" ")
    model = random_model(mode, seed=1, shared="always" if always else "together")
    run, base = build(EXECUTOR, PLANNER, JOINT, model=model), frozen(model)
    states = [model.weights.state()]
    run.on_stage_end = lambda stage: states.append(model.weights.state())
    run.train()
    assert [changed(a, b) for a, b in pairwise(states)] == LEARNS[case]
    assert all(torch.equal(p, base[name]) for name, p in frozen(model).items())
    dragged = {"joint": True, "partial always": True}.get(case, False)
    assert ("drift_planner" in run.metrics.rows[0]) == dragged
    gaps = [row[f"logp_gap_{role}"] for row in run.metrics.rows for role in ROLES if f"logp_gap_{role}" in row]
    assert gaps and max(gaps) < 2e-4


@pytest.mark.parametrize("mode", ["joint", "separate"])
def test_whole_models_train_too(mode: WeightMode, tmp_path: Path) -> None:
    model = random_model(mode, seed=1, method="full")
    run = build(EXECUTOR, JOINT, model=model)
    before = model.weights.state()
    run.train()
    assert changed(before, model.weights.state()) == set(sum(UNITS[mode].values(), ()))
    save_weights(model.weights, tmp_path)
    fresh = random_model(mode, seed=9, method="full")
    load_weights(fresh.weights, tmp_path)
    assert not changed(model.weights.state(), fresh.weights.state())
    for role in ROLES:
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / UNITS[mode][role][0])
        assert torch.equal(logits(plain), logits(model.weights.merged(role)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "split", "method": "full"}, "full training needs joint or separate"),
        ({"mode": "partial", "method": "full"}, "full training needs joint or separate"),
        ({"mode": "joint", "executor_model": "x"}, "needs separate"),
        ({"mode": "joint", "method": "full", "quantize": "4bit"}, "cannot be trained in full"),
    ],
)
def test_impossible_settings_say_why(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightsConfig(**settings)


# -- the guard ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["split", "partial"])
def test_a_wrong_adapter_left_active_is_caught(mode: WeightMode) -> None:
    class Stuck(RoleWeights):
        """Whoever acts, the planner's adapters are active."""

        @contextmanager
        def acting_as(self, role: Role) -> Iterator[Any]:
            with super().acting_as("planner") as model:
                yield model

    sound = random_model(mode, seed=1)
    weights = Stuck(copy.deepcopy(sound.weights.bodies[0].plain), sound.weights.config, seed=2)
    run = build(EXECUTOR, model=LocalModel(weights, sound.specs, sound.prompts))
    before = run.model.weights.state()
    with pytest.raises(
        InternalError, match=r"no finite gradient reached executor\..*; was another adapter left active"
    ):
        run.train()
    assert not changed(before, run.model.weights.state())


@pytest.mark.parametrize("mode", MODES)
def test_the_guard_names_what_moved_or_did_not(mode: WeightMode) -> None:
    weights = random_model(mode, adapters=0.1).weights
    unit = UNITS[mode]["executor"][-1]
    mine = weights.unit(unit)
    for parameter in mine.values():
        parameter.grad = torch.ones_like(parameter)

    def step(parameters: Any) -> None:
        with torch.no_grad():
            for parameter in parameters:
                parameter += 1

    with weights.guarded([unit]):
        step(mine.values())
    with pytest.raises(InternalError, match=f"did not change {unit}"), weights.guarded([unit]):
        step(list(mine.values())[1:])
    others = [u for body in weights.bodies for u in body.units if u != unit]
    for other in others:
        with pytest.raises(InternalError, match=f"changed {other}.*should be frozen"), weights.guarded([unit]):
            step([*mine.values(), next(iter(weights.unit(other).values()))])
    with pytest.raises(InternalError, match=r"changed .*should be frozen"), weights.guarded([unit]):
        step([*mine.values(), next(iter(weights.bodies[0].frozen.values()))])
    next(iter(mine.values())).grad = torch.full_like(next(iter(mine.values())), torch.nan)
    with pytest.raises(InternalError, match="no finite gradient"), weights.guarded([unit]):
        pass


# -- rollouts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_merged_copies_answer_as_the_adapters_and_change_no_weight(mode: WeightMode) -> None:
    model = random_model(mode, adapters=0.1)
    weights, base = model.weights, frozen(model)
    state = weights.state()
    for role, answer in zip(ROLES, answers(weights), strict=True):
        for _ in range(3):
            torch.testing.assert_close(logits(weights.merged(role)), answer, rtol=0, atol=1e-4)
            weights.load_state(weights.state())  # makes the copy merge again
    assert not changed(state, weights.state())
    assert all(torch.equal(frozen(model)[name], value) for name, value in base.items())


# -- what leaves hiplan ------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("mode", MODES)
def test_an_exported_role_is_a_plain_peft_adapter(mode: WeightMode, role: Role, tmp_path: Path) -> None:
    weights = random_model(mode, adapters=0.1).weights
    answer = dict(zip(ROLES, answers(weights), strict=True))[role]
    export_weights(weights, role, tmp_path / "adapter")
    plain = PeftModel.from_pretrained(copy.deepcopy(weights.body(role).plain), str(tmp_path / "adapter")).eval()
    if mode == "partial":
        torch.testing.assert_close(logits(plain), answer, rtol=0, atol=1e-4)
    else:
        assert torch.equal(logits(plain), answer)
    weights.snapshot(role).save_pretrained(tmp_path / "merged")  # type: ignore[operator]
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), answer, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("source", "target"),
    [("joint", "split"), ("joint", "separate"), ("joint", "partial"), ("partial", "split"), ("split", "separate")],
)
def test_converted_weights_answer_as_before(source: WeightMode, target: WeightMode) -> None:
    before = random_model(source, adapters=0.1)
    state, config = converted(before.weights.state(), before.weights.config, target)
    assert config.mode == target
    after = RoleWeights(copy.deepcopy(before.weights.bodies[0].plain), config)
    after.load_state(after.state() | state)
    for old, new in zip(answers(before.weights), answers(after), strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=1e-4)


def test_conversions_that_would_change_a_role_are_refused() -> None:
    split = random_model("split").weights
    for target, message in (("joint", "say which role's to keep"), ("partial", "share nothing")):
        with pytest.raises(ConfigError, match=message):
            converted(split.state(), split.config, target)  # type: ignore[arg-type]
    state, config = converted(split.state(), split.config, "joint", keep="executor")
    assert config.mode == "joint" and {key.split(".")[0] for key in state} == {"joint"}
    two = split.config.model_copy(update={"mode": "separate", "executor_model": "elsewhere"})
    with pytest.raises(ConfigError, match="two different base models"):
        converted(split.state(), two, "split")
