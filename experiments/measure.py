"""Measuring and playing a trained stage outside its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console

from experiments.job import AGENTS, PANELS, panels
from experiments.settings import RunConfig, check
from hiplan.agent import Agent
from hiplan.coordination import Limits
from hiplan.coordination.policy import POLICIES
from hiplan.envs import make_env
from hiplan.errors import ConfigError
from hiplan.evaluation import TEMPERATURES, Cell, evaluate
from hiplan.evaluation.panels import EnvName
from hiplan.executors import Executor
from hiplan.loading import load_model
from hiplan.models.stages import read_stage
from hiplan.planners import NoPlanner, Planner, PlannerProtocol
from hiplan.report.tables import results_table
from hiplan.report.transcript import print_transcript


def measure(
    checkpoint: Path,
    panel_seed: int | None,
    panel: str,
    tasks: int | None,
    decoding: str,
    env: str | None,
    threads: int,
    console: Console,
) -> None:
    """Print one table for the checkpoint; with ``best`` the decoding is chosen on the dev panel."""
    if panel not in (*PANELS, "all"):
        raise ConfigError(f"no panel is called {panel!r}; expected one of {', '.join(PANELS)} or all")
    if decoding not in (*TEMPERATURES, "best"):
        raise ConfigError(f"no decoding is called {decoding!r}; expected one of {', '.join(TEMPERATURES)} or best")
    model = load_model(checkpoint=checkpoint)
    config = as_trained(checkpoint, env=env, panel_seed=panel_seed, panel_tasks=tasks, threads=threads)
    torch.set_num_threads(config.threads)
    known = panels(config)
    planner: dict[str, PlannerProtocol] = {"plan": Planner(model.prompts), "none": NoPlanner()}
    executor, limits = Executor(model.prompts), Limits(turns=config.eval_turns)
    policy = POLICIES[config.train.revise]
    rows: list[dict[str, Any]] = []

    def run(wanted: list[tuple[str, str, str]]) -> None:
        cells = [
            Cell(known[p].tasks, planner[a], executor, config.train.decoding(TEMPERATURES[d])) for a, d, p in wanted
        ]
        results = evaluate(model, cells, make_env, policy=policy, limits=limits)
        for (a, d, p), result in zip(wanted, results, strict=True):
            low, high = result.interval
            row = {"kind": "eval", "stage": checkpoint.name, "iteration": 0, "panel": p, "agent": a, "decoding": d}
            rows.append(row | {"success": result.success, "low": low, "high": high, "n": len(result.episodes)})

    names = list(TEMPERATURES) if decoding == "best" else [decoding]
    run([(a, d, "dev") for a in AGENTS for d in names])
    best = {a: max((r for r in rows if r["agent"] == a), key=lambda r: r["success"])["decoding"] for a in AGENTS}
    run([(a, best[a], p) for a in AGENTS for p in PANELS if p != "dev" and panel in (p, "all")])
    shown = [r for r in rows if r["decoding"] == best[r["agent"]] and (panel in (r["panel"], "all"))]
    console.print(results_table(shown))
    for name, tasks_of in known.items():
        console.print(f"{name}: {tasks_of.name}, {len(tasks_of.tasks)} tasks, hash {tasks_of.hash}", highlight=False)
    console.print(f"decoding: plan {best['plan']}, none {best['none']}", highlight=False)


def as_trained(checkpoint: Path | None, **over: Any) -> RunConfig:
    """Default settings, with what the checkpoint's run had set for measuring, and what is given over them."""
    about = read_stage(checkpoint).about if checkpoint else {}
    train = {key: about["decoding"][key] for key in ("plan_tokens", "action_tokens")} if "decoding" in about else {}
    train |= {key: about[key] for key in ("revise",) if key in about}
    known = {key: about[key] for key in ("env", "eval_turns") if key in about}
    return check(known | {"train": train} | {key: value for key, value in over.items() if value is not None})


def play_one(
    checkpoint: Path | None, panel: str, index: int, env: str, seed: int, temperature: float, console: Console
) -> None:
    """Print the transcript of one episode."""
    if panel not in PANELS:
        raise ConfigError(f"no panel is called {panel!r}; expected one of {', '.join(PANELS)}")
    if env not in get_args(EnvName):
        raise ConfigError(f"no tasks are called {env!r}; expected one of {', '.join(get_args(EnvName))}")
    tasks = panels(check({"env": env}))[panel].tasks
    if not 0 <= index < len(tasks):
        raise ConfigError(f"the panel has no task {index}; expected 0 to {len(tasks) - 1}")
    if temperature < 0:
        raise ConfigError(f"the temperature must be at least 0, got {temperature}")
    model = load_model(checkpoint=checkpoint)
    config = as_trained(checkpoint)
    policy, limits = POLICIES[config.train.revise], Limits(turns=config.eval_turns)
    agent = Agent(model, decoding=config.train.decoding(temperature), policy=policy, limits=limits)
    print_transcript(agent.run(tasks[index], seed), console)
