"""hiplan's main job and its companions. With no arguments: train the three stages and watch the agent improve."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is ever downloaded
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that `python experiments/run.py` finds experiments

import typer

from hiplan.errors import ConfigError, UserError
from hiplan.report.terminal import Terminal

app = typer.Typer(
    add_completion=False, no_args_is_help=False, rich_markup_mode="markdown",
    pretty_exceptions_enable=False,  # typer's own tracebacks show local variables, keys among them
    pretty_exceptions_show_locals=False,
)  # fmt: skip
console = Terminal()
HELP = """Train a planner-executor agent by PilotRL's three stages and watch it improve.

With no arguments: measures the untrained agent with plans and without, trains executor, planner and both,
measures again, and writes `runs/NAME/` with metrics, checkpoints, pictures, transcripts and `report.html`.

A stopped run goes on with `--resume runs/NAME`.

Any setting can be overridden: `--set train.groups=6 --set train.stages.joint.iterations=100`;
`--show-config` prints them all.
"""

Config = Annotated[Path | None, typer.Option(help="YAML file with settings; see experiments/configs/.")]
Model = Annotated[str | None, typer.Option(help="Shipped model (tiny-v1) or a folder with a Hugging Face model.")]
Weights = Annotated[str | None, typer.Option(help="joint, split, partial or separate: which weights the roles share.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random in the run.")]
PanelSeed = Annotated[int | None, typer.Option(help="Measure on fresh panels made from this seed.")]
Out = Annotated[Path | None, typer.Option(help="Folder to write to. Default: runs/ENV-WEIGHTS-SEED.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="path.to.field=value, for any field; may be repeated.")]


@app.callback(invoke_without_command=True, help=HELP)
def main(
    context: typer.Context,
    config: Config = None,
    model: Model = None,
    weights: Weights = None,
    seed: Seed = None,
    panel_seed: PanelSeed = None,
    out: Out = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with a stopped run in this folder.")] = None,
    match: Annotated[Path | None, typer.Option(help="Train for as many environment steps as this run took.")] = None,
    set: Set = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build the model without memory, print what the run would need, and stop.")
    ] = False,
    show_config: Annotated[bool, typer.Option("--show-config", help="Print the resolved settings and stop.")] = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    import yaml

    from experiments.settings import matched, read_run, resolve

    given = {"model": model, "weights__mode": weights, "seed": seed, "panel_seed": panel_seed}
    if resume is not None:
        if config or set or match or out or any(value is not None for value in given.values()):
            raise ConfigError("--resume takes no other settings; the run goes on with those it was started with")
        settings, folder = read_run(resume), resume
    else:
        settings = resolve(config, set or [], **given)
        if match is not None:
            from experiments.job import read_metrics

            steps = (row["env_steps"] for row in read_metrics(match) if row["kind"] == "train")
            settings = matched(settings, max(steps, default=0))
        folder = out or Path("runs") / f"{settings.env}-{settings.weights.mode}-{settings.seed}"
    if show_config:
        typer.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), nl=False)
        return
    if dry_run:
        from experiments.dry_run import needs

        console.print(needs(settings))
        return
    if resume is None and (folder / "metrics.jsonl").exists():
        raise ConfigError(f"{str(folder)!r} already holds a run; go on with --resume {folder}, or choose another --out")
    from experiments.job import Job

    try:
        Job(settings, folder, console).run()
    except KeyboardInterrupt:
        console.print(f"stopped; go on with: python experiments/run.py --resume {folder}", markup=False)
        raise typer.Exit(130) from None


@app.command(help="Measure a stage checkpoint (RUN/stages/joint) on fresh or shipped panels.")
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A stage folder that a run wrote, such as RUN/stages/joint.")],
    panel_seed: PanelSeed = None,
    panel: Annotated[str, typer.Option(help="train, dev, heldout, or all.")] = "all",
    tasks: Annotated[int | None, typer.Option(help="Use only so many tasks of each panel.")] = None,
    decoding: Annotated[str, typer.Option(help="greedy, t0.3, t0.7, t1.0, or best (chosen on dev).")] = "best",
    env: Annotated[str | None, typer.Option(help="mixed, crafting or household. [default: as trained]")] = None,
    threads: Annotated[int, typer.Option(help="torch's threads.")] = 2,
) -> None:
    from experiments.measure import measure

    measure(checkpoint, panel_seed, panel, tasks, decoding, env, threads, console)


@app.command(help="Write one role of a stage checkpoint as a plain PEFT adapter, or merged as a plain model.")
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A stage folder that a run wrote, such as RUN/stages/joint.")],
    role: Annotated[str, typer.Option(help="planner or executor.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; peft, transformers and vLLM load it without hiplan.")],
    merged: Annotated[bool, typer.Option("--merged", help="Write a whole model instead of an adapter.")] = False,
) -> None:
    from experiments.export import export_role

    export_role(checkpoint, role, out, merged)
    console.print(f"{role} of {checkpoint} is in {out}", markup=False, highlight=False)


@app.command(help="Make a stage checkpoint of another weight mode with which both roles answer as before.")
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A stage folder that a run wrote, such as RUN/stages/joint.")],
    to: Annotated[str, typer.Option(help="joint, split, partial or separate.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    keep: Annotated[str | None, typer.Option(help="To joint: the role whose weights survive.")] = None,
) -> None:
    from experiments.export import convert_stage

    convert_stage(checkpoint, to, out, keep)
    console.print(f"{checkpoint} with {to} weights is in {out}", markup=False, highlight=False)


@app.command(help="Run a study over seeds: arms that differ in a few settings. Finished cells are kept and skipped.")
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
    from experiments.ablate import Runner
    from experiments.comparison import report
    from experiments.studies import SEARCH_SEED, STUDIES

    if study not in STUDIES:
        raise ConfigError(f"no study is called {study!r}; expected one of {', '.join(STUDIES)}")
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds takes whole numbers such as 0,1,2, got {seeds!r}") from None
    if SEARCH_SEED in numbers:
        raise ConfigError(f"seed {SEARCH_SEED} is the one learning rates are chosen with; take others for --seeds")
    folder, summaries = out or Path("runs") / study, kept or Path("docs/studies") / study
    cells, chosen = Runner(STUDIES[study], summaries, folder, parallel, set or [], console).all(numbers)
    command = f"python experiments/run.py ablate {study} --seeds {seeds}"
    text = report(STUDIES[study], cells, chosen, numbers, summaries, command)
    console.print(text, markup=False, highlight=False, soft_wrap=True)


Runs = Annotated[list[Path], typer.Argument(help="Folders of finished runs that differ in their seed.")]
StageName = Annotated[str, typer.Option(help="The stage that is measured.")]
PanelNames = Annotated[str, typer.Option("--panels", help="train, dev, heldout; comma-separated.")]
Parallel = Annotated[int, typer.Option(min=1, help="Processes at once, one torch thread each.")]
Few = Annotated[int | None, typer.Option(help="Use only so many tasks of each panel.")]
Greedy = Annotated[str, typer.Option(help="greedy, t0.3, t0.7 or t1.0.")]


@app.command(help="Is the plan used, and is it any good? Reliance before and after training, cross-play, deviations.")
def diagnose(
    runs: Runs,
    stage: StageName = "joint",
    panel_names: PanelNames = "train,heldout",
    tasks: Few = None,
    decoding: Greedy = "greedy",
    out: Annotated[Path, typer.Option(help="Folder of cells, tables, pictures and report.html.")] = Path(
        "runs/diagnose"
    ),
    parallel: Parallel = 2,
) -> None:
    from experiments.diagnose import diagnose

    _study(diagnose, runs, stage, panel_names, tasks, decoding, out, parallel)


@app.command(help="Compare when plans are revised and which of several is taken: success, tokens, model calls.")
def policies(
    runs: Runs,
    stage: StageName = "joint",
    panel_names: PanelNames = "train,heldout",
    tasks: Few = None,
    decoding: Greedy = "greedy",
    out: Annotated[Path, typer.Option(help="Folder of cells, tables and report.html.")] = Path("runs/policies"),
    parallel: Parallel = 2,
) -> None:
    from experiments.diagnose import policies

    _study(policies, runs, stage, panel_names, tasks, decoding, out, parallel)


def _study(
    study: Callable[..., str], runs: list[Path], stage: str, panel_names: str, tasks: int | None, decoding: str,
    out: Path, parallel: int,
) -> None:  # fmt: skip
    from hiplan.evaluation import TEMPERATURES

    if decoding not in TEMPERATURES:
        raise ConfigError(f"no decoding is called {decoding!r}; expected one of {', '.join(TEMPERATURES)}")
    options = "" if tasks is None else f" --tasks {tasks}"
    command = f"python experiments/run.py {study.__name__} {' '.join(map(str, runs))} --panels {panel_names}"
    command += f"{options} --stage {stage} --decoding {decoding}"
    text = study(runs, stage, panel_names.split(","), tasks, decoding, out, parallel, console, command)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(f"report: {out / 'report.html'}", markup=False, highlight=False)


@app.command(help="Play one task with a stage checkpoint (or the untrained model) and print the transcript.")
def play(
    checkpoint: Annotated[Path | None, typer.Argument(help="A stage folder; without one, the untrained model.")] = None,
    panel: Annotated[str, typer.Option(help="train, dev or heldout.")] = "dev",
    index: Annotated[int, typer.Option(help="Which task of the panel, from 0.")] = 0,
    env: Annotated[str, typer.Option(help="mixed, crafting or household.")] = "household",
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
) -> None:
    from experiments.measure import play_one

    play_one(checkpoint, panel, index, env, seed, temperature, console)


@app.command(
    help="Sample plans, judge them, write those that pass as a plan file for stage 1; goes on where it stopped."
)
def plans(
    out: Annotated[Path, typer.Option(help="The plan file, JSONL; scores go to OUT.scores.jsonl.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Stage folder that plans. [default: the untrained model]")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Or an endpoint that plans, as http://localhost:8000/v1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model's name there.")] = None,
    key_env: Annotated[str | None, typer.Option(help="The environment variable that holds the endpoint's key.")] = None,
    prices: Annotated[str | None, typer.Option(help="Of a million prompt and completion tokens, as 0.15,0.6.")] = None,
    judge: Annotated[str, typer.Option(help="rules or endpoint.")] = "rules",
    judge_endpoint: Annotated[str | None, typer.Option(help="Who judges. [default: the endpoint that plans]")] = None,
    judge_model: Annotated[str | None, typer.Option(help="The model's name there.")] = None,
    judge_key_env: Annotated[
        str | None, typer.Option(help="The environment variable that holds the key there.")
    ] = None,
    judge_prices: Annotated[str | None, typer.Option(help="The prices there.")] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Show the judge how the oracle solves the task.")
    ] = False,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks to sample plans for.")] = 200,
    tries: Annotated[int, typer.Option(min=1, help="Plans per task in a batch; half must pass.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Batches per task at most.")] = 3,
    batch: Annotated[int, typer.Option(min=1, help="Tasks at once; what a killed run does again at most.")] = 16,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Of one answer at most. [default: 512, or as trained]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of tasks and sampling.")] = 0,
    env: Annotated[str, typer.Option(help="mixed, crafting or household.")] = "mixed",
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once to an endpoint.")] = 8,
    timeout: Annotated[float, typer.Option(help="Seconds for one answer of an endpoint.")] = 120.0,
    cache: Annotated[Path | None, typer.Option(help="Folder of the endpoints' answers. [default: OUT.cache]")] = None,
) -> None:
    from experiments.plan_data import plan_data, read_prices
    from hiplan.models.api import Endpoint

    def there(url: str | None, name: str | None, key: str | None, cost: str | None, what: str) -> Endpoint | None:
        if (url is None) != (name is None):
            raise ConfigError(f"--{what}endpoint and --{what}model go together; give both")
        if url is None or name is None:
            if key or cost:
                raise ConfigError(f"--{what}key-env and --{what}prices are of --{what}endpoint; give that, too")
            return None
        folder = cache or out.with_name(f"{out.name}.cache")
        return Endpoint(url, name, key, concurrency, timeout=timeout, cache=folder, prices=read_prices(cost))

    if judge not in ("rules", "endpoint"):
        raise ConfigError(f"no judge is called {judge!r}; expected rules or endpoint")
    planner = there(endpoint, model, key_env, prices, "")
    judges = there(judge_endpoint, judge_model, judge_key_env, judge_prices, "judge-")
    if planner and checkpoint:
        raise ConfigError("--checkpoint and --endpoint both say who plans; give one of them")
    if judges and judge == "rules":
        raise ConfigError("--judge-endpoint goes with --judge endpoint")
    if judge == "endpoint" and not (judges or planner):
        raise ConfigError("--judge endpoint needs --judge-endpoint and --judge-model, or --endpoint and --model")
    settings = {"env": env, "seed": seed, "tries": tries, "rounds": rounds, "batch": batch, "reference": reference}
    judging = (judges or planner) if judge == "endpoint" else None
    try:
        plan_data(out, tasks, checkpoint, planner, judging, tokens, console, **settings)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on")
        raise typer.Exit(130) from None


def one_line(run: Callable[[], Any]) -> int:
    """Run the app and return its exit code; a user's mistake is one line on standard error and exit code 2."""
    try:
        run()
    except SystemExit as ended:  # typer's own end
        return int(ended.code or 0)
    except UserError as error:
        Terminal(stderr=True).error(error)
        return 2
    return 0


if __name__ == "__main__":
    code = one_line(app)
    if "LOCAL_RANK" in os.environ:  # started by accelerate launch or torchrun
        from hiplan.training.processes import leave

        leave(code)
    sys.exit(code)
