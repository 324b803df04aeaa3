"""Evaluate and play agents, with the same protocol for runs, stages and studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import torch
from rich.console import Console

from hiplan.agent import Agent
from hiplan.coordination import Limits
from hiplan.envs import Panel, fresh_panel, shipped_panel, suite
from hiplan.envs.tasks import EnvName, PanelName
from hiplan.errors import ConfigError
from hiplan.evaluation import TEMPERATURES, Cell, EvalResult, evaluate
from hiplan.loading import load_agent, load_model, stage_facts
from hiplan.planners import NoPlanner, PlannerProtocol
from hiplan.report.tables import results_table
from hiplan.report.transcript import print_transcript
from hiplan.runs.settings import RunConfig, check
from hiplan.sampler import Job, Sampler
from hiplan.task import Task

AGENTS = ("plan", "none")
PANELS: tuple[PanelName, ...] = ("train", "dev", "heldout")


def panels(config: RunConfig) -> dict[str, Panel]:
    """The three panels of a run: shipped or drawn with ``panel_seed``, cut to ``panel_tasks`` if that is set."""
    out: dict[str, Panel] = {}
    for name in PANELS:
        if config.panel_seed is None and config.env in get_args(EnvName):
            panel = shipped_panel(name, cast(EnvName, config.env))
        else:
            panel = fresh_panel(name, config.panel_seed or 0, config.env)
        out[name] = panel if config.panel_tasks is None else panel.cut(config.panel_tasks)
    return out


def evaluation_sampler(config: RunConfig, sampler: Sampler) -> Sampler:
    """The training sampler with the turn limit for evaluation."""
    return replace(sampler, limits=Limits(turns=config.eval_turns))


def measure_agents(
    config: RunConfig, sampler: Sampler, cells: Sequence[tuple[str, str, Sequence[Task]]]
) -> list[EvalResult]:
    """Evaluate cells of (agent, decoding, tasks); the agent ``plan`` has its planner, ``none`` has no plans."""
    planners: dict[str, PlannerProtocol] = {"plan": sampler.planner, "none": NoPlanner()}
    decode = config.train.decoding
    return evaluate(
        sampler,
        [Cell(tasks, planners[agent], sampler.executor, decode(TEMPERATURES[name])) for agent, name, tasks in cells],
    )


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
    """Evaluate a stage or a model folder and print a table; the decoding ``best`` is chosen on the dev panel.

    Raises ``ConfigError`` for an unknown panel, decoding or environment, and ``CheckpointError`` for a damaged stage.
    """
    if panel not in (*PANELS, "all"):
        raise ConfigError(f"unknown panel {panel!r}; expected one of {', '.join(PANELS)} or all")
    if decoding not in (*TEMPERATURES, "best"):
        raise ConfigError(f"unknown decoding {decoding!r}; expected one of {', '.join(TEMPERATURES)} or best")
    sampler, facts = load_sampler(checkpoint)
    config = as_trained(facts, env=env, panel_seed=panel_seed, panel_tasks=tasks, threads=threads)
    torch.set_num_threads(config.threads)
    sampler = replace(sampler, make_env=suite(config.env).make_env)
    known = panels(config)
    rows: list[dict[str, Any]] = []

    def run(wanted: list[tuple[str, str, str]]) -> None:
        results = measure_agents(config, sampler, [(a, d, known[cast(PanelName, p)].tasks) for a, d, p in wanted])
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


def load_sampler(checkpoint: Path | None) -> tuple[Sampler, dict[str, Any]]:
    """A sampler for a stage with its run's settings, or for a model folder (default: tiny-v1), and the run's facts."""
    if checkpoint is None or (not (checkpoint / "stage.json").exists() and (checkpoint / "config.json").exists()):
        model = load_model(str(checkpoint or "tiny-v1"))
        config = as_trained({})
        return replace(
            Agent(model, decoding=config.train.decoding()).sampler, limits=Limits(turns=config.eval_turns)
        ), {}
    return load_agent(checkpoint).sampler, stage_facts(checkpoint)


def as_trained(facts: dict[str, Any], **over: Any) -> RunConfig:
    """Default settings, updated with the evaluation settings of a stage's run (``facts``), then with ``over``."""
    decoding = facts.get("decoding") or {}
    train = {key: decoding[key] for key in ("plan_tokens", "action_tokens") if key in decoding}
    train |= {key: facts[key] for key in ("revise", "replan", "matcher") if facts.get(key)}
    known = {key: facts[key] for key in ("env", "eval_turns") if key in facts}
    return check(known | {"train": train} | {key: value for key, value in over.items() if value is not None}, RunConfig)


def play_one(
    checkpoint: Path | None, panel: str, index: int, env: str, seed: int, temperature: float, console: Console
) -> None:
    """Play one task and print the transcript. Raises ``ConfigError`` for an unknown panel, task or temperature."""
    if panel not in PANELS:
        raise ConfigError(f"unknown panel {panel!r}; expected one of {', '.join(PANELS)}")
    tasks = panels(check({"env": env}, RunConfig))[panel].tasks
    if not 0 <= index < len(tasks):
        raise ConfigError(f"the panel {panel!r} has no task {index}; expected 0 to {len(tasks) - 1}")
    if temperature < 0:
        raise ConfigError(f"--temperature must be at least 0, got {temperature!r}")
    sampler = replace(load_sampler(checkpoint)[0], make_env=suite(env).make_env)
    job = Job(tasks[index], sampler.planner, sampler.executor, seed, sampler.decoding.at(temperature))
    print_transcript(sampler.run([job])[0], console)
