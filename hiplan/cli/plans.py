"""``hiplan plans``: given plans for the executor's stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hiplan.cli.train import Set, ShowConfig
from hiplan.report.terminal import Terminal


def plans(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The plan file, JSONL; scores go to OUT.scores.jsonl.")],
    config: Annotated[
        Path | None, typer.Option(help="YAML file with settings; what it leaves out has defaults.")
    ] = None,
    set: Set = None,
    show_config: ShowConfig = False,
) -> None:
    """Sample plans, judge them, and write those that pass as a plan file for the executor's stage.

    By default the untrained model plans and the rules judge. A stage, or any OpenAI-compatible endpoint, can plan, and
    an endpoint can judge. A stopped run continues with the same command.

    \b
      planner: {url: http://localhost:8000/v1, model: my-model, key_env: MY_KEY, prices: [0.15, 0.6]}
      judge: planner
      tasks: 200

    \b
      hiplan plans plans.jsonl --config plans.yaml
      hiplan plans plans.jsonl --set stage=runs/mixed-split-0/stages/planner
      hiplan train --set train.plan_file=plans.jsonl --set train.stages.executor.plans=file
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
        console.print("stopped; the same command continues")
        raise typer.Exit(130) from None
