"""Data-parallel training: each process plays its share of the episodes and computes its share of each gradient.

Every process has all weights and receives all episodes, so statistics over groups are equal in all processes, and an
update equals that of one process with the same global batch, up to the order of sums. A single process does not
communicate. Start with ``accelerate launch``, or with ``torchrun`` on a machine without a GPU.
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
    """Create this process's accelerator, move the model to its device, and shard the weights if configured.

    Raises ``ConfigError`` if the settings do not fit the processes or the weights.
    """
    cpu = "LOCAL_RANK" in os.environ and not has_accelerator()  # otherwise every rank starts with world size 1
    accelerator = Accelerator(cpu=cpu)
    model.to(accelerator.device)
    if config.shard or accelerator.distributed_type is DistributedType.FSDP:
        if not is_initialized():
            raise ConfigError("shard needs several processes; start with accelerate launch, or set shard: false")
        if model.weights.config.quantize != "none":
            raise ConfigError("a 4-bit base model cannot be sharded; set quantize: none, or shard: false")
        model.weights.shard(accelerator.device)
    if not model.weights.mergeable and any(stage.kl for stage in config.stages):
        raise ConfigError(
            "kl above 0 needs a full copy of the weights; set kl: 0 in all stages with sharded or 4-bit weights"
        )
    return accelerator


def refuse_several(accelerator: Accelerator) -> None:
    """Raises ``ConfigError`` if several processes run, which a warm start does not support."""
    if accelerator.num_processes > 1:
        raise ConfigError(
            "warm_start runs in one process only; start the run in one process, stop it after the warm start, and "
            "resume it in several"
        )


def play_together(
    jobs: Sequence[Job], play: Callable[[Sequence[Job]], list[Episode]], accelerator: Accelerator
) -> list[Episode]:
    """The episodes of all jobs, in order: each of n processes plays every n-th job, then they exchange the episodes."""
    count, rank = accelerator.num_processes, accelerator.process_index
    mine = play(jobs[rank::count])
    if count == 1:
        return mine
    received: Iterator[str] = iter(gather_object([episode.to_json() for episode in mine]))  # in the order of ranks
    found = {place: next(received) for other in range(count) for place in range(other, len(jobs), count)}
    return [Episode.from_json(found[place]) for place in range(len(jobs))]


def judge_on_main_process(judge: Judge, accelerator: Accelerator) -> Judge:
    """The judge, called in the main process only, so that all processes use the same scores."""
    if accelerator.num_processes == 1:
        return judge

    def ask(candidates: Sequence[Submission]) -> list[PlanScore | Unjudged]:
        found = judge(candidates) if accelerator.is_main_process else None
        scores: list[PlanScore | Unjudged] = broadcast_object_list([found])[0]
        return scores

    return ask


def local_batches(all_batches: Iterable[Batch], accelerator: Accelerator) -> list[Batch]:
    """This process's share of the batches, padded with fully masked ones to equal numbers for sharded models."""
    known = list(all_batches)
    count = accelerator.num_processes
    if missing := -len(known) % count:
        empty = replace(known[-1], mask=torch.zeros_like(known[-1].mask))
        known += [empty] * missing
    return known[accelerator.process_index :: count]


def sum_gradients(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Sum the gradients over the processes, in one message."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if accelerator.num_processes == 1 or not gradients:
        return
    flat = accelerator.reduce(torch.cat([g.flatten() for g in gradients]), reduction="sum")
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def sum_over_processes(figures: dict[str, float], accelerator: Accelerator) -> dict[str, float]:
    """Each number summed over the processes."""
    if accelerator.num_processes == 1:
        return figures
    values = torch.tensor(list(figures.values()), dtype=torch.float64, device=accelerator.device)
    return dict(zip(figures, accelerator.reduce(values, reduction="sum").tolist(), strict=True))


def max_over_processes(figure: float, accelerator: Accelerator) -> float:
    """The maximum of a number over the processes."""
    return float(accelerator.gather(torch.tensor([figure], device=accelerator.device)).max())
