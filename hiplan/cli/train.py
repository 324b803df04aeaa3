"""``hiplan train``: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hiplan.errors import ConfigError
from hiplan.report.terminal import Terminal

Config = Annotated[Path | None, typer.Option(help="YAML file with settings; what it leaves out has defaults.")]
Model = Annotated[str | None, typer.Option(help="Shipped model (tiny-v1) or a folder with a Hugging Face model.")]
Env = Annotated[
    str | None,
    typer.Option(help="Tasks: mixed, crafting, household, or a TaskSuite of yours as file.py:name or module:name."),
]
Weights = Annotated[str | None, typer.Option(help="joint, split, partial or separate: what the roles share.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random in the run.")]
PanelSeed = Annotated[int | None, typer.Option(help="Measure on fresh panels made from this seed.")]
Out = Annotated[Path | None, typer.Option(help="Folder to write to. [default: runs/ENV-WEIGHTS-SEED]")]
Resume = Annotated[Path | None, typer.Option(help="Continue the stopped run in this folder.")]
Match = Annotated[Path | None, typer.Option(help="Train for as many environment steps as this run took.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="path.to.field=value, for any setting; may be repeated.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the memory that the run would need, and stop.")]
ShowConfig = Annotated[bool, typer.Option("--show-config", help="Print the resolved settings, and stop.")]


def train(
    config: Config = None,
    model: Model = None,
    env: Env = None,
    weights: Weights = None,
    seed: Seed = None,
    panel_seed: PanelSeed = None,
    out: Out = None,
    resume: Resume = None,
    match: Match = None,
    set: Set = None,
    dry_run: DryRun = False,
    show_config: ShowConfig = False,
) -> None:
    """Train an agent stage by stage and measure it before, between and after.

    By default: PilotRL's three stages (executor, planner, both) on the embedded tasks, with the shipped model.
    The folder gets metrics, checkpoints, stages, pictures, transcripts and report.html.

    \b
      hiplan train --set train.groups=6 --set train.stages.joint.iterations=100
      hiplan train --env mine.py:suite --set train.algorithm.reward=mine.py:reward
      hiplan train --resume runs/mixed-split-0

    --show-config prints every setting.
    """
    import yaml

    from hiplan.runs.settings import matched, read_run, resolve

    given = {"model": model, "env": env, "weights__mode": weights, "seed": seed, "panel_seed": panel_seed}
    if resume is not None:
        if config or set or match or out or any(value is not None for value in given.values()):
            raise ConfigError("--resume takes no other settings; the run continues with those it was started with")
        settings, folder = read_run(resume), resume
    else:
        settings = resolve(config, set or [], **given)
        if match is not None:
            from hiplan.runs.job import read_metrics

            steps = (row["env_steps"] for row in read_metrics(match) if row["kind"] == "train")
            settings = matched(settings, max(steps, default=0))
        folder = out or Path("runs") / f"{settings.env.rpartition(':')[2]}-{settings.weights.mode}-{settings.seed}"
    console = Terminal()
    if show_config:
        typer.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), nl=False)
        return
    if dry_run:
        from hiplan.runs.dry_run import needs

        console.print(needs(settings))
        return
    if resume is None and (folder / "metrics.jsonl").exists():
        raise ConfigError(
            f"{str(folder)!r} already holds a run; continue it with --resume {folder}, or choose another --out"
        )
    from hiplan.runs.job import Job

    try:
        Job(settings, folder, console).run()
    except KeyboardInterrupt:
        console.print(f"stopped; continue with: hiplan train --resume {folder}", markup=False)
        raise typer.Exit(130) from None
