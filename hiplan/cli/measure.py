"""``hiplan evaluate``, ``play`` and ``diagnose``: how good a trained stage is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hiplan.cli.train import PanelSeed
from hiplan.errors import ConfigError
from hiplan.report.terminal import Terminal

Stage = Annotated[
    Path, typer.Argument(metavar="STAGE", help="A stage folder such as RUN/stages/joint, or a model's folder as it is.")
]
Tasks = Annotated[int | None, typer.Option(help="Use only this many tasks of each panel.")]
Runs = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs that differ in their seed.")
]


def evaluate(
    stage: Stage,
    panel_seed: PanelSeed = None,
    panel: Annotated[str, typer.Option(help="train, dev, heldout, or all.")] = "all",
    tasks: Tasks = None,
    decoding: Annotated[str, typer.Option(help="greedy, t0.3, t0.7, t1.0, or best (chosen on dev).")] = "greedy",
    env: Annotated[str | None, typer.Option(help="Other tasks than those of its run; see hiplan train.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="torch's threads.")] = 2,
) -> None:
    """Measure a stage with plans and without, on the shipped panels or on fresh ones.

    \b
      hiplan evaluate runs/mixed-split-0/stages/joint
      hiplan evaluate runs/mixed-split-0/stages/joint --panel heldout --panel-seed 7
    """
    from hiplan.runs.measure import measure

    measure(stage, panel_seed, panel, tasks, decoding, env, threads, Terminal())


def play(
    stage: Annotated[
        Path | None, typer.Argument(metavar="[STAGE]", help="A stage folder; without one, the untrained model.")
    ] = None,
    panel: Annotated[str, typer.Option(help="train, dev or heldout.")] = "dev",
    index: Annotated[int, typer.Option(help="Which task of the panel, from 0.")] = 0,
    env: Annotated[str, typer.Option(help="mixed, crafting, household, or a TaskSuite as file.py:name.")] = "household",
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
) -> None:
    """Play one task of a panel and print the transcript."""
    from hiplan.runs.measure import play_one

    play_one(stage, panel, index, env, seed, temperature, Terminal())


def diagnose(
    runs: Runs,
    study: Annotated[
        Literal["plans", "replan"],
        typer.Option(help="plans: is the plan used, and is it good; replan: when to revise, and which plan to take."),
    ] = "plans",
    stage: Annotated[str, typer.Option(help="The stage that is measured.")] = "joint",
    panels: Annotated[str, typer.Option(help="train, dev, heldout; comma-separated.")] = "train,heldout",
    tasks: Tasks = None,
    decoding: Annotated[str, typer.Option(help="greedy, t0.3, t0.7 or t1.0.")] = "greedy",
    out: Annotated[
        Path | None, typer.Option(help="Folder of cells, tables and report.html. [default: runs/diagnose-STUDY]")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Processes at once, one torch thread each.")] = 2,
) -> None:
    """Measure whether trained agents use their plans, and what revisions are worth.

    plans measures the agent with its own plan, another task's plan, no plan and the environment's plan, before and
    after training; with several runs also the planner of each with the executor of the others. replan compares when
    plans are revised and which of several candidate plans is taken: success, tokens, model calls.

    Finished cells are kept; the same command continues a stopped study.
    """
    from hiplan.evaluation import TEMPERATURES
    from hiplan.runs import diagnose as studies

    if decoding not in TEMPERATURES:
        raise ConfigError(f"unknown decoding {decoding!r}; expected one of {', '.join(TEMPERATURES)}")
    folder = out or Path("runs") / f"diagnose-{study}"
    command = f"hiplan diagnose {' '.join(map(str, runs))} --study {study} --panels {panels}"
    command += ("" if tasks is None else f" --tasks {tasks}") + f" --stage {stage} --decoding {decoding}"
    console = Terminal()
    measured = studies.diagnose if study == "plans" else studies.policies
    text = measured(runs, stage, panels.split(","), tasks, decoding, folder, parallel, console, command)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(f"report: {folder / 'report.html'}", markup=False, highlight=False)
