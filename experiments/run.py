"""hiplan's main job and its studies. With no arguments: train the three stages and watch the agent improve."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that `python experiments/run.py` finds experiments

import typer

from hiplan.cli import train as job
from hiplan.cli.app import exit_process, run
from hiplan.cli.train import Config, DryRun, Env, Match, Model, Out, PanelSeed, Resume, Seed, Set, ShowConfig, Weights
from hiplan.errors import ConfigError
from hiplan.report.terminal import Terminal

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
)
HELP = f"""{job.train.__doc__}

The same as hiplan train; ablate runs the studies.
"""


@app.callback(invoke_without_command=True, help=HELP)
def main(
    context: typer.Context,
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
    if context.invoked_subcommand is None:
        job.train(config, model, env, weights, seed, panel_seed, out, resume, match, set, dry_run, show_config)


@app.command()
def ablate(
    study: Annotated[
        str,
        typer.Argument(
            help="weights: joint, split, partial, separate; revise: on failure, every turn, never; "
            "guard, guard-strong: does a reward for following teach to follow bad plans; baselines: README's table."
        ),
    ],
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "0,1,2",
    out: Annotated[Path | None, typer.Option(help="Folder of the runs and the report. [default: runs/STUDY]")] = None,
    kept: Annotated[
        Path | None, typer.Option(help="Folder of the cells' summaries. [default: docs/studies/STUDY]")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Cells at once, one torch thread each.")] = 2,
    set: Set = None,
) -> None:
    """Run a study over seeds: arms that differ in a few settings. Finished cells are kept and skipped."""
    from experiments.ablate import Ablation
    from experiments.comparison import report
    from experiments.studies import SEARCH_SEED, STUDIES

    if study not in STUDIES:
        raise ConfigError(f"unknown study {study!r}; expected one of {', '.join(STUDIES)}")
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds takes whole numbers such as 0,1,2, got {seeds!r}") from None
    if SEARCH_SEED in numbers:
        raise ConfigError(f"seed {SEARCH_SEED} is the one learning rates are chosen with; take others for --seeds")
    folder, summaries = out or Path("runs") / study, kept or Path("docs/studies") / study
    console = Terminal()
    cells, chosen = Ablation(STUDIES[study], summaries, folder, parallel, set or [], console).all(numbers)
    command = f"python experiments/run.py ablate {study} --seeds {seeds}"
    text = report(STUDIES[study], cells, chosen, numbers, summaries, command)
    console.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    exit_process(run(app))
