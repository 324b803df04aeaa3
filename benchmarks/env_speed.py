"""Measure the speed of the embedded environments in one process.

    python benchmarks/env_speed.py --tasks 300

Prints resets, steps and oracle actions per second for each environment and
panel.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

from hiplan.env import Oracle
from hiplan.envs import fresh_panel, make_env
from hiplan.task import Task


def oracle_actions(task: Task) -> list[str]:
    env = make_env(task)
    env.reset(task)
    assert isinstance(env, Oracle)
    actions: list[str] = []
    while not actions or not env.step(actions[-1]).terminated:
        actions.append(env.oracle_action(None))
    return actions


def measure(tasks: Sequence[Task]) -> tuple[int, float, float, float]:
    """The number of steps, and resets, steps and oracle actions per second."""
    began = time.perf_counter()
    scripts = [oracle_actions(task) for task in tasks]
    thinking = time.perf_counter() - began
    began = time.perf_counter()
    envs = [make_env(task) for task in tasks]
    for env, task in zip(envs, tasks, strict=True):
        env.reset(task)
    resetting = time.perf_counter() - began
    began = time.perf_counter()
    for env, actions in zip(envs, scripts, strict=True):
        for action in actions:
            env.step(action)
            env.state_key()
    stepping = time.perf_counter() - began
    steps = sum(map(len, scripts))
    return steps, len(tasks) / resetting, steps / stepping, steps / (thinking - resetting - stepping)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=300, help="tasks per panel")
    parser.add_argument("--repeats", type=int, default=5, help="number of runs; the median is shown")
    args = parser.parse_args()
    print("environment  panel    tasks  steps  resets/s   steps/s  oracle actions/s")
    for name in ("crafting", "household"):
        for panel in ("train", "heldout"):
            tasks = fresh_panel(panel, 1, name, args.tasks).tasks
            runs = [measure(tasks) for _ in range(args.repeats)]
            steps, resets, speed, oracle = (statistics.median(column) for column in zip(*runs, strict=True))
            counts = f"{name:<11}  {panel:<7}  {len(tasks):>5}  {steps:>5}"
            print(f"{counts}  {resets:>8,.0f}  {speed:>8,.0f}  {oracle:>16,.0f}")


if __name__ == "__main__":
    main()
