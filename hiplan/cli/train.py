"""``hiplan train``: train an agent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hiplan.errors import ConfigError
from hiplan.report.terminal import Terminal

Config = Annotated[Path | None, typer.Option(help="YAML file with settings; others keep their defaults.")]
Model = Annotated[
    str | None, typer.Option(help="A shipped model or a folder with a Hugging Face model. [default: tiny-v1]")
]
Env = Annotated[
    str | None,
    typer.Option(
        help="Tasks: mixed, crafting, household, or a TaskSuite as file.py:name or module:name. [default: mixed]"
    ),
]
Weights = Annotated[
    str | None, typer.Option(help="What the roles share: joint, split, partial or separate. [default: split]")
]
Seed = Annotated[int | None, typer.Option(help="Seed of the run. [default: 0]")]
PanelSeed = Annotated[
    int | None, typer.Option(help="Evaluate on new panels drawn with this seed. [default: the shipped panels]")
]
Out = Annotated[Path | None, typer.Option(help="Folder to write to. [default: runs/ENV-WEIGHTS-SEED]")]
Resume = Annotated[Path | None, typer.Option(help="Continue the stopped run in this folder.")]
Match = Annotated[Path | None, typer.Option(help="Train for as many environment steps as the run in this folder.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override any setting; may be repeated."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print an estimate of the memory for the run, and exit.")]
ShowConfig = Annotated[bool, typer.Option("--show-config", help="Print all settings of the run, and exit.")]


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
    """Train an agent in stages and evaluate it after each.

    \b
      hiplan train
      hiplan train --set train.groups=6 --set train.stages.joint.iterations=100
      hiplan train --env mine.py:suite --set train.algorithm.reward=mine.py:reward
      hiplan train --resume runs/mixed-split-0

    By default, trains the shipped model on the embedded tasks in PilotRL's three stages: executor, planner, both.
    Evaluates the agent before training and after every stage.

    Writes metrics, checkpoints, stages, figures, transcripts and report.html to the run folder. --show-config prints
    every setting.
    """
    import yaml

    from hiplan.runs.settings import matched, read_run, resolve

    given = {"model": model, "env": env, "weights__mode": weights, "seed": seed, "panel_seed": panel_seed}
    if resume is not None:
        if config or set or match or out or any(value is not None for value in given.values()):
            raise ConfigError(
                f"--resume {str(resume)!r} continues with the settings of that run; remove all other options but "
                "--dry-run and --show-config"
            )
        settings, folder = read_run(resume), resume
    else:
        settings = resolve(config, set or [], **given)
        if match is not None:
            from hiplan.runs.job import read_metrics

            rows = (row for row in read_metrics(match) if row["kind"] == "train")
            steps = max((row.get("env_steps") or 0 for row in rows), default=0)
            if not steps:
                raise ConfigError(f"--match {str(match)!r}: this run has no environment steps; expected a trained run")
            settings = matched(settings, steps)
        folder = out or Path("runs") / f"{settings.env.rpartition(':')[2]}-{settings.weights.mode}-{settings.seed}"
    console = Terminal()
    if show_config:
        typer.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), nl=False)
        return
    if dry_run:
        from hiplan.runs.dry_run import memory_table

        console.print(memory_table(settings))
        return
    if resume is None and (folder / "metrics.jsonl").exists():
        raise ConfigError(
            f"{str(folder)!r} already holds a run; continue it with --resume {folder}, or choose another folder with "
            "--out"
        )
    from hiplan.runs.job import Job

    try:
        Job(settings, folder, console).run()
    except KeyboardInterrupt:
        console.print(f"stopped; continue with: hiplan train --resume {folder}", markup=False)
        raise typer.Exit(130) from None
