"""``hiplan export`` and ``hiplan convert``: write a trained stage in another form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hiplan.report.terminal import Terminal

Stage = Annotated[Path, typer.Argument(metavar="STAGE", help="A stage folder such as RUN/stages/joint.")]


def export(
    stage: Stage,
    role: Annotated[str, typer.Option(help="planner or executor.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    merged: Annotated[bool, typer.Option("--merged", help="Merge the adapter and write a complete model.")] = False,
) -> None:
    """Export one role as a PEFT adapter or a complete model.

    \b
      hiplan export runs/mixed-split-0/stages/joint --role planner --out planner
      hiplan export runs/mixed-split-0/stages/joint --role executor --merged \\
          --out executor

    peft, transformers and vLLM load the result without hiplan.
    """
    from hiplan.runs.export import export_role

    export_role(stage, role, out, merged)
    Terminal().print(f"{role} of {stage}: {out}", markup=False, highlight=False)


def convert(
    stage: Stage,
    to: Annotated[str, typer.Option(help="joint, split, partial or separate.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    keep: Annotated[str | None, typer.Option(help="With --to joint: the role whose weights both roles use.")] = None,
) -> None:
    """Convert a stage to another weight mode.

    \b
      hiplan convert runs/mixed-split-0/stages/joint --to separate --out separate
      hiplan convert runs/mixed-split-0/stages/joint --to joint --keep planner \\
          --out joint

    Both roles answer as before; with --to joint, only the role given by --keep does.
    """
    from hiplan.runs.export import convert_stage

    convert_stage(stage, to, out, keep)
    Terminal().print(f"{stage} with {to} weights: {out}", markup=False, highlight=False)
