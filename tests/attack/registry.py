"""All that is attacked."""

from __future__ import annotations

from collections.abc import Sequence

from attack import agents, codec, faults, files, network, rendering, texts, weights
from attack.core import Target

TARGETS: Sequence[Target] = (
    *files.TARGETS,
    *weights.TARGETS,
    *texts.TARGETS,
    *agents.TARGETS,
    *rendering.TARGETS,
    *codec.TARGETS,
    *network.TARGETS,
)
BY_NAME = {target.name: target for target in (*TARGETS, *faults.TARGETS)}


def split(targets: Sequence[Target], inputs: int) -> dict[str, int]:
    """How many of the inputs each target gets, at least one each; the cheapest takes what rounding leaves."""
    whole = sum(target.share for target in targets)
    counts = {target.name: max(1, inputs * target.share // whole) for target in targets}
    cheapest = min(targets, key=lambda target: target.ms)
    counts[cheapest.name] = max(1, counts[cheapest.name] + inputs - sum(counts.values()))
    return counts
