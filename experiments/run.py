"""hiplan's main job and its studies; without arguments, the same as ``hiplan train``."""

from __future__ import annotations

import sys
from inspect import cleandoc
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
HELP = f"""{cleandoc(job.train.__doc__ or "")}

Without a subcommand this is the same as hiplan train; ablate runs a study.
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
        typer.Argument(metavar="STUDY", help="main, baselines, weights, revise, guard, or guard-strong."),
    ],
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "0,1,2",
    out: Annotated[Path | None, typer.Option(help="Folder for the runs. [default: runs/STUDY]")] = None,
    summaries: Annotated[
        Path | None, typer.Option(help="Folder for summaries, tables, report. [default: docs/studies/STUDY]")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Number of cells at once, with one torch thread each.")] = 2,
    set: Set = None,
) -> None:
    """Run a study: arms that differ in a few settings, over seeds.

    \b
      python experiments/run.py ablate weights
      python experiments/run.py ablate revise --seeds 0,1,2 --parallel 1

    \b
    Studies:
      main           the main job with its defaults
      baselines      three stages against rejection sampling and ReAct + GRPO
      weights        joint, split, partial and separate weights
      revise         revisions on failure, every turn, or never
      guard          rewarding adherence to the plans of an untrained planner
      guard-strong   the same with a larger reward and more steps

    A cell is one run with one seed. Its summary is stored; the same command skips finished cells and continues
    stopped ones.
    """
    from experiments.ablate import Ablation
    from experiments.comparison import report
    from experiments.studies import SEARCH_SEED, STUDIES

    if study not in STUDIES:
        raise ConfigError(f"unknown study {study!r}; expected one of {', '.join(STUDIES)}")
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds must be whole numbers such as 0,1,2, got {seeds!r}") from None
    if SEARCH_SEED in numbers:
        raise ConfigError(
            f"--seeds must not contain {SEARCH_SEED}, the seed of the learning-rate search, got {seeds!r}; use others"
        )
    folder, results = out or Path("runs") / study, summaries or Path("docs/studies") / study
    console = Terminal()
    cells, chosen = Ablation(STUDIES[study], results, folder, parallel, set or [], console).all(numbers)
    command = f"python experiments/run.py ablate {study} --seeds {seeds}"
    text = report(STUDIES[study], cells, chosen, numbers, results, command)
    console.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    exit_process(run(app))
