"""Several processes as one: each plays its share of the episodes and computes its share of each gradient.

Every process holds all weights and learns of every episode, so statistics over groups are the same in all of them, and
an update is that of one process with the same global batch, up to the order of sums. With one process nothing
is sent. Start with ``accelerate launch``, or with ``torchrun`` where there is no GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn
from torch.accelerator import is_available as has_accelerator
from torch.distributed import is_initialized

from hiplan.coordination import Judge, PlanScore, Submission, Unjudged
from hiplan.errors import ConfigError
from hiplan.models.local import LocalModel
from hiplan.sampler import Job
from hiplan.trace import Episode
from hiplan.training.batch import Batch
from hiplan.training.config import TrainConfig


def start(model: LocalModel, config: TrainConfig) -> Accelerator:
    """The accelerator of this process, with the model on its device, and sharded where settings say so.

    Raises ``ConfigError`` for settings that these processes or weights cannot have.
    """
    cpu = "LOCAL_RANK" in os.environ and not has_accelerator()  # otherwise every rank starts with world size 1
    accelerator = Accelerator(cpu=cpu)
    model.to(accelerator.device)
    if config.shard or accelerator.distributed_type is DistributedType.FSDP:
        if not is_initialized():
            raise ConfigError("shard splits weights over several processes; start with accelerate launch, or use false")
        if model.weights.config.quantize != "none":
            raise ConfigError("a base in four bits cannot be sharded; use quantize: none, or shard: false")
        model.weights.shard(accelerator.device)
    if not model.weights.mergeable and any(stage.kl for stage in config.stages):
        raise ConfigError(
            "kl needs a whole copy of the weights at the stage's start; use kl 0 with sharded or 4-bit weights"
        )
    return accelerator


def play_together(
    jobs: Sequence[Job], play: Callable[[Sequence[Job]], list[Episode]], accelerator: Accelerator
) -> list[Episode]:
    """All jobs' episodes in order: every n-th is played here, the others come from the other processes."""
    count, rank = accelerator.num_processes, accelerator.process_index
    mine = play(jobs[rank::count])
    if count == 1:
        return mine
    told: Iterator[str] = iter(gather_object([episode.to_json() for episode in mine]))  # in the order of ranks
    found = {place: next(told) for other in range(count) for place in range(other, len(jobs), count)}
    return [Episode.from_json(found[place]) for place in range(len(jobs))]


def asked_once(judge: Judge, accelerator: Accelerator) -> Judge:
    """The judge, asked by the first process alone: another's scores might differ, and advantages with them."""
    if accelerator.num_processes == 1:
        return judge

    def ask(candidates: Sequence[Submission]) -> list[PlanScore | Unjudged]:
        found = judge(candidates) if accelerator.is_main_process else None
        scores: list[PlanScore | Unjudged] = broadcast_object_list([found])[0]
        return scores

    return ask


def my_batches(all_batches: Iterable[Batch], accelerator: Accelerator) -> list[Batch]:
    """This process's share; where it has one less, one without weight, because sharded models compute in step."""
    known = list(all_batches)
    count = accelerator.num_processes
    if missing := -len(known) % count:
        empty = replace(known[-1], mask=torch.zeros_like(known[-1].mask))
        known += [empty] * missing
    return known[accelerator.process_index :: count]


def sum_gradients(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Add up the processes' gradients, in one message."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if accelerator.num_processes == 1 or not gradients:
        return
    flat = accelerator.reduce(torch.cat([g.flatten() for g in gradients]), reduction="sum")
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def add_up(figures: dict[str, float], accelerator: Accelerator) -> dict[str, float]:
    """Sums of figures over the processes."""
    if accelerator.num_processes == 1:
        return figures
    values = torch.tensor(list(figures.values()), dtype=torch.float64, device=accelerator.device)
    return dict(zip(figures, accelerator.reduce(values, reduction="sum").tolist(), strict=True))


def largest(figure: float, accelerator: Accelerator) -> float:
    """The largest of a figure over the processes."""
    return float(accelerator.gather(torch.tensor([figure], device=accelerator.device)).max())
