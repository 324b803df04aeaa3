"""The policy loss: cases worked by hand, TRL's GRPO loss as an independent judge, and tokens without loss."""

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from trl import GRPOTrainer

from hiplan.training.losses import clipped_loss, k3

EVERY = torch.ones(1, 1, dtype=torch.bool)
EXTREMES = [math.inf, -math.inf, math.nan, 3e38, -3e38, 1e4, -1e4, 0.0]


def one(ratio: float, advantage: float, **options: float | None) -> tuple[float, float]:
    """The loss of a single token and its gradient with respect to log pi."""
    logp = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    loss = clipped_loss(logp, torch.zeros(1, 1, dtype=torch.float64), torch.tensor([[advantage]]), EVERY, **options)
    loss.backward()
    assert logp.grad is not None
    return loss.item(), logp.grad.item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.0, 2.0, -2.0, -2.0),  # the first step: plain policy gradient
        (1.1, 1.0, -1.1, -1.1),  # inside the range
        (1.5, 1.0, -1.28, 0.0),  # up enough already: held at 1 + clip_high
        (0.5, 1.0, -0.5, -0.5),  # a good token that became rare is pulled back
        (0.7, -1.0, 0.8, 0.0),  # down enough already: held at 1 - clip_low
        (0.9, -1.0, 0.9, 0.9),
        (2.0, -1.0, 2.0, 2.0),  # a bad token that became likely is pushed down
        (5.0, -1.0, 3.0, 0.0),  # ... by dual clip no further than 3
        (5.0, 1.0, -1.28, 0.0),  # dual clip is for A < 0 alone
    ],
)
def test_the_cases_of_the_clip_worked_by_hand(ratio: float, advantage: float, loss: float, gradient: float) -> None:
    assert one(ratio, advantage) == pytest.approx((loss, gradient), abs=1e-12)


def test_without_dual_clip_a_bad_token_is_pushed_without_bound() -> None:
    assert one(5.0, -1.0, dual_clip=None) == pytest.approx((5.0, 5.0))


def test_the_range_is_as_given() -> None:
    assert one(1.5, 1.0, clip_high=0.6) == pytest.approx((-1.5, -1.5))
    assert one(1.5, 1.0, clip_high=0.4) == pytest.approx((-1.4, 0.0))
    assert one(0.7, -1.0, clip_low=0.4) == pytest.approx((0.7, 0.7))


def test_the_mean_is_over_tokens_and_not_over_rows() -> None:
    advantage = torch.tensor([[3.0, 3.0, 3.0], [-1.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    zero = torch.zeros(2, 3)
    assert clipped_loss(zero, zero, advantage, mask).item() == pytest.approx(-(9 - 1) / 4)
    assert clipped_loss(zero, zero, advantage, mask, denominator=16).item() == pytest.approx(-8 / 16)
    pieces = [x.split(1) for x in (zero, zero, advantage, mask)]
    halves = [clipped_loss(*piece, denominator=4) for piece in zip(*pieces, strict=True)]
    assert sum(halves).item() == pytest.approx(-8 / 4)  # a batch cut into pieces


def test_nothing_to_learn_is_a_loss_of_zero() -> None:
    logp = torch.zeros(1, 3, requires_grad=True)
    for loss in (
        clipped_loss(logp, torch.zeros(1, 3), torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.bool)),
        k3(logp, torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.bool)),
    ):
        assert loss.item() == 0.0
        loss.backward()
    assert logp.grad is not None and logp.grad.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("value", EXTREMES)
@pytest.mark.parametrize("where", ["logp", "old", "advantage"])
def test_masked_tokens_get_no_gradient_whatever_their_values(value: float, where: str) -> None:
    mask = torch.tensor([[True, False]])
    given_ = {name: torch.tensor([[0.1, 0.2]]) for name in ("logp", "old", "advantage")}
    given_[where][0, 1] = value
    logp = given_["logp"].requires_grad_()
    loss = clipped_loss(logp, given_["old"], given_["advantage"], mask)
    if where != "advantage":
        loss = loss + k3(logp, given_["old"], mask)
    loss.backward()
    assert logp.grad is not None
    assert logp.grad[0, 1] == 0
    assert torch.isfinite(loss) and torch.isfinite(logp.grad[0, 0]) and logp.grad[0, 0] != 0


@given(st.lists(st.floats(-30, 30, allow_nan=False), min_size=2, max_size=2))
def test_k3_is_never_negative_and_zero_where_the_policies_agree(pair: list[float]) -> None:
    logp, reference = (torch.tensor([[x]], dtype=torch.float64) for x in pair)
    assert k3(logp, reference, EVERY).item() >= 0
    assert k3(logp, logp, EVERY).item() == 0


def test_k3_worked_by_hand() -> None:
    logp, reference = torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([[math.log(2), math.log(0.5), 0.0]])
    expected = ((2 - math.log(2) - 1) + (0.5 + math.log(2) - 1)) / 2
    assert k3(logp, reference, torch.tensor([[True, True, False]])).item() == pytest.approx(expected)
    assert k3(logp, reference, torch.tensor([[True, True, False]]), 4).item() == pytest.approx(expected / 2)


def trl_loss(
    logp: Tensor, old: Tensor, advantage: Tensor, mask: Tensor, loss_type: str, delta: float | None, beta: float
) -> Tensor:
    """TRL's own ``_compute_loss`` on given log-probabilities: the real method, on a trainer without a model."""
    trainer = object.__new__(GRPOTrainer)
    trainer.__dict__.update(
        beta=beta, loss_type=loss_type, epsilon_low=0.2, epsilon_high=0.28, importance_sampling_level="token",
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False,
        _entropy_bonus_enabled=False, current_gradient_accumulation_steps=1, model=SimpleNamespace(training=True),
        args=SimpleNamespace(delta=delta, steps_per_generation=1, use_bias_correction_kl=False),
        accelerator=SimpleNamespace(num_processes=1, reduce=lambda x, reduction: x, gather=lambda x: x),
        _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *a, **k: (logp, torch.zeros_like(logp), None),
    )  # fmt: skip
    inputs = {
        "prompt_ids": torch.zeros(len(logp), 1, dtype=torch.long),
        "prompt_mask": torch.ones(len(logp), 1, dtype=torch.long),
        "completion_ids": torch.zeros_like(logp, dtype=torch.long),
        "completion_mask": torch.ones_like(logp, dtype=torch.long),
        "tool_mask": mask.long(),  # tokens of the environment, as hiplan's prompts are
        "advantages": advantage,
        "old_per_token_logps": old,
        "ref_per_token_logps": old,
        "num_items_in_batch": mask.sum(),
    }
    loss: Tensor = trainer._compute_loss(None, inputs)
    return loss


@pytest.mark.parametrize("loss_type", ["bnpo", "dapo"])
@pytest.mark.parametrize("dual_clip", [None, 3.0])
@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_and_its_gradient_are_those_of_trl(
    loss_type: str, dual_clip: float | None, beta: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (6, 11)
    old = -3 * torch.rand(shape, generator=generator, dtype=torch.float64)
    logp = (old + torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
    advantage = torch.randn(6, 1, generator=generator, dtype=torch.float64).expand(shape)
    mask = torch.rand(shape, generator=generator) < 0.6
    theirs = trl_loss(logp, old, advantage, mask, loss_type, dual_clip, beta)
    (their_gradient,) = torch.autograd.grad(theirs, logp)
    mine = clipped_loss(logp, old, advantage, mask, dual_clip=dual_clip) + beta * k3(logp, old, mask)
    (my_gradient,) = torch.autograd.grad(mine, logp)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(my_gradient, their_gradient, rtol=0, atol=1e-12)
    ratio = torch.exp(logp - old)[mask]
    assert (ratio > 1.28).any() and (ratio < 0.8).any() and (ratio > 3).any()  # every branch was taken
