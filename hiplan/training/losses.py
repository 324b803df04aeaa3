"""Token-level policy losses as pure functions of tensors, all (B, T).

PPO-clip (arXiv 1707.06347) as in PilotRL's public scripts (arXiv 2508.00344): asymmetric clip range (clip-higher, DAPO,
arXiv 2503.14476), dual clip (arXiv 1912.09729), token mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
"""``loss(logp, logp_old, advantage, mask, denominator)``, a scalar; the four tensors are (B, T)."""


def clipped_loss(
    logp: Tensor,
    logp_old: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = 3.0,
    denominator: float | None = None,
) -> Tensor:
    """``-min(rho * A, clip(rho, 1 - clip_low, 1 + clip_high) * A)``, ``rho = exp(logp - logp_old)``, token mean.

    ``dual_clip``: for A < 0 the loss of a token is at most ``-dual_clip * A``. ``mask``: True for tokens that carry
    loss; all others get no gradient. ``denominator``: the number of tokens to divide by, for batches in several parts;
    default: the sum of the mask.
    """
    ratio = torch.exp(torch.where(mask, logp - logp_old, 0.0))
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip_low, 1 + clip_high) * advantage)
    if dual_clip is not None:
        gain = torch.where(advantage < 0, torch.maximum(gain, dual_clip * advantage), gain)
    total = torch.where(mask, -gain, 0.0).sum()
    return total / (mask.sum().clamp_min(1) if denominator is None else denominator)


def k3(logp: Tensor, logp_reference: Tensor, mask: Tensor, denominator: float | None = None) -> Tensor:
    """Schulman's k3 estimate of KL(policy || reference), token mean: ``exp(d) - d - 1``, ``d = ref - logp``."""
    d = torch.where(mask, logp_reference - logp, 0.0)
    total = (torch.exp(d) - d - 1).sum()
    return total / (mask.sum().clamp_min(1) if denominator is None else denominator)


def likelihood_loss(logp: Tensor, logp_old: Tensor, advantage: Tensor, mask: Tensor, denominator: float) -> Tensor:
    """``-A * logp``, token mean: supervised learning on the tokens with A = 1. ``logp_old`` is not used."""
    return -torch.where(mask, advantage * logp, 0.0).sum() / denominator


LOSSES: Mapping[str, Loss | None] = {"clip": None, "likelihood": likelihood_loss}
"""The names in settings; ``clip`` is ``clipped_loss`` with the ranges of the settings."""
