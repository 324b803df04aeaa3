"""``hiplan plans``: make a plan file for the executor stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hiplan.cli.train import Set, ShowConfig
from hiplan.report.terminal import Terminal


def plans(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The plan file to write (JSONL); scores go to OUT.scores.jsonl.")
    ],
    config: Annotated[Path | None, typer.Option(help="YAML file with settings; others keep their defaults.")] = None,
    set: Set = None,
    show_config: ShowConfig = False,
) -> None:
    """Sample and judge plans, and write a plan file.

    \b
      hiplan plans plans.jsonl
      hiplan plans plans.jsonl --set stage=runs/mixed-split-0/stages/planner
      hiplan plans plans.jsonl --config plans.yaml

    The plan file has the plans that the judge passes, for training the executor:

    \b
      hiplan train --set train.plan_file=plans.jsonl \\
          --set train.stages.executor.plans=file

    By default the untrained model writes the plans and the rules judge them. A stage or an OpenAI-compatible endpoint
    can write plans instead, and an endpoint can judge them, as in this plans.yaml:

    \b
      planner:
        url: http://localhost:8000/v1
        model: my-model
        key_env: MY_KEY
        prices: [0.15, 0.6]
      judge: planner
      tasks: 200

    The same command continues a stopped run.
    """
    import yaml

    from hiplan.runs.plan_data import PlanDataConfig, plan_data
    from hiplan.runs.settings import resolved

    settings = resolved(PlanDataConfig, config, set or [])
    if show_config:
        typer.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), nl=False)
        return
    console = Terminal()
    try:
        plan_data(settings, out, console)
    except KeyboardInterrupt:
        console.print("stopped; continue with the same command")
        raise typer.Exit(130) from None
