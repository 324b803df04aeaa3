"""``hiplan export`` and ``convert``: what leaves a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hiplan.report.terminal import Terminal

Stage = Annotated[Path, typer.Argument(metavar="STAGE", help="A stage folder such as RUN/stages/joint.")]


def export(
    stage: Stage,
    role: Annotated[str, typer.Option(help="planner or executor.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; peft, transformers and vLLM load it without hiplan.")],
    merged: Annotated[bool, typer.Option("--merged", help="Write a whole model instead of an adapter.")] = False,
) -> None:
    """Write one role of a stage as a plain PEFT adapter, or merged into its base as a plain model."""
    from hiplan.runs.export import export_role

    export_role(stage, role, out, merged)
    Terminal().print(f"{role} of {stage}: {out}", markup=False, highlight=False)


def convert(
    stage: Stage,
    to: Annotated[str, typer.Option(help="joint, split, partial or separate.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    keep: Annotated[str | None, typer.Option(help="To joint: the role whose weights are kept.")] = None,
) -> None:
    """Write a stage with another weight mode, in which both roles answer as before."""
    from hiplan.runs.export import convert_stage

    convert_stage(stage, to, out, keep)
    Terminal().print(f"{stage} with {to} weights: {out}", markup=False, highlight=False)
