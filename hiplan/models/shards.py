"""Weights split over processes: FSDP2, which keeps a share of every tensor in each (``torch.distributed.fsdp``).

Whole tensors are put together where they are saved or read. That, and every forward pass of a split model, all
processes must do together and in the same order.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(model: Any, device: torch.device) -> None:
    """Split all parameters over all processes, decoder layer by decoder layer; gradients are summed over them."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    kinds = set(model._no_split_modules or ())
    for module in [m for m in model.modules() if type(m).__name__ in kinds]:
        fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)  # else its own parameters stay whole after a rollout
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other


def whole(tensor: Tensor) -> Tensor:
    """The tensor with all processes' shares."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def here(tensor: Tensor) -> Tensor:
    """This process's share, sharing its memory; a tensor that is not split as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def split_like(other: Tensor, value: Tensor) -> Tensor:
    """``value``, which every process has whole, split as ``other`` is."""
    if not isinstance(other, DTensor):
        return value
    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements, src_data_rank=None)
