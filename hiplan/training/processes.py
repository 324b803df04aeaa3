"""Several processes as one: each plays its share of the episodes and computes its share of each gradient.

Every process holds all weights and learns of every episode, so statistics over groups are the same in all of them, and
an update is that of one process with the same global batch, up to the order of sums. With one process nothing
is sent. Start with ``accelerate launch``, or with ``torchrun`` where there is no GPU.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from hiplan.sampler import Job
from hiplan.trace import Episode
from hiplan.training.batch import Batch


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


def leave(code: int) -> NoReturn:
    """End one of several processes whose work is done, without Python's own clearing up.

    torch's caches keep the mesh of a sharded model and with it gloo's threads (2.13). One of these that has yet to let
    go of a last message's tensors when the interpreter ends aborts the process, and the launcher calls the run failed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
