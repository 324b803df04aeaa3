"""``hiplan evaluate``, ``hiplan play`` and ``hiplan diagnose``: evaluate trained stages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hiplan.cli.train import PanelSeed
from hiplan.errors import ConfigError
from hiplan.report.terminal import Terminal

Stage = Annotated[
    Path, typer.Argument(metavar="STAGE", help="A stage folder such as RUN/stages/joint, or a model folder.")
]
Tasks = Annotated[int | None, typer.Option(help="Use only this many tasks of each panel.")]
Runs = Annotated[
    list[Path], typer.Argument(metavar="RUN", help="Folders of finished runs that differ only in their seed.")
]


def evaluate(
    stage: Stage,
    panel_seed: PanelSeed = None,
    panel: Annotated[str, typer.Option(help="train, dev, heldout, or all.")] = "all",
    tasks: Tasks = None,
    decoding: Annotated[str, typer.Option(help="greedy, t0.3, t0.7, t1.0, or best (chosen on dev).")] = "greedy",
    env: Annotated[
        str | None, typer.Option(help="Tasks, as for hiplan train. [default: those of the stage's run]")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Number of torch threads.")] = 2,
) -> None:
    """Evaluate a stage with plans and without plans.

    \b
      hiplan evaluate runs/mixed-split-0/stages/joint
      hiplan evaluate runs/mixed-split-0/stages/joint --panel heldout
      hiplan evaluate runs/mixed-split-0/stages/joint --panel-seed 7

    Prints success with 95 % intervals on the panels train, dev and heldout. A panel is a fixed list of tasks;
    --panel-seed draws new tasks from the same distribution.
    """
    from hiplan.runs.measure import measure

    measure(stage, panel_seed, panel, tasks, decoding, env, threads, Terminal())


def play(
    stage: Annotated[
        Path | None, typer.Argument(metavar="STAGE", help="A stage or model folder. [default: untrained tiny-v1]")
    ] = None,
    panel: Annotated[str, typer.Option(help="train, dev or heldout.")] = "dev",
    index: Annotated[int, typer.Option(help="The task's number in the panel, from 0.")] = 0,
    env: Annotated[str, typer.Option(help="mixed, crafting, household, or a TaskSuite as file.py:name.")] = "household",
    seed: Annotated[int, typer.Option(help="Sampling seed.")] = 0,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0 is greedy.")] = 0.0,
) -> None:
    """Play one task of a panel and print the transcript.

    \b
      hiplan play
      hiplan play runs/mixed-split-0/stages/joint --env crafting --index 3
    """
    from hiplan.runs.measure import play_one

    play_one(stage, panel, index, env, seed, temperature, Terminal())


def diagnose(
    runs: Runs,
    study: Annotated[
        Literal["plans", "replan"],
        typer.Option(help="plans: plan use and plan quality; replan: when to revise and which candidate plan to use."),
    ] = "plans",
    stage: Annotated[str, typer.Option(help="Name of the stage to evaluate.")] = "joint",
    panels: Annotated[str, typer.Option(help="train, dev, heldout; comma-separated.")] = "train,heldout",
    tasks: Tasks = None,
    decoding: Annotated[str, typer.Option(help="greedy, t0.3, t0.7 or t1.0.")] = "greedy",
    out: Annotated[
        Path | None, typer.Option(help="Folder for cells, tables and report.html. [default: runs/diagnose-STUDY]")
    ] = None,
    parallel: Annotated[
        int, typer.Option(min=0, help="Number of processes, with one torch thread each; 0: only this process.")
    ] = 2,
) -> None:
    """Test whether agents use their plans and benefit from revisions.

    \b
      hiplan diagnose runs/mixed-split-0
      hiplan diagnose runs/mixed-split-0 runs/mixed-split-1
      hiplan diagnose runs/mixed-split-0 --study replan --tasks 32

    --study plans compares success with the agent's own plan, another task's plan, no plan, and the environment's plan,
    before and after training. With several runs it also combines the planner of each run with the executors of the
    others.

    --study replan compares success and cost of several replan policies and of several ways to choose among candidate
    plans.

    Results of finished cells are stored, and the same command continues a stopped study.
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
