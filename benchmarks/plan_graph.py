"""Measure the time of plan-graph operations on a large plan.

    python benchmarks/plan_graph.py --steps 1000

Prints the milliseconds of each operation.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from typing import Any

from hiplan.coordination import PlanGraph
from hiplan.plan import Plan, PlanStep, diff


def random_plan(count: int, seed: int) -> Plan:
    """A plan in which each step depends on at most three of the thirty steps before it."""
    rng = random.Random(seed)
    steps = []
    for i in range(1, count + 1):
        after = sorted(rng.sample(range(max(1, i - 30), i), min(i - 1, rng.randint(0, 3))))
        steps.append(PlanStep(id=i, description=f"make part {i} of {rng.randint(1, 99)}", after=tuple(after)))
    return Plan(steps=tuple(steps))


def shuffled(plan: Plan, seed: int) -> Plan:
    rng = random.Random(seed)
    steps = list(plan.steps)
    for _ in range(len(steps) // 20):
        steps.insert(rng.randrange(len(steps)), steps.pop(rng.randrange(len(steps))))
    return Plan(steps=tuple(steps))


def walk(graph: PlanGraph) -> int:
    """Complete the plan by repeatedly doing the next ready step."""
    done: set[int] = set()
    while (step := graph.next(done)) is not None:
        done.add(step)
    return len(done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="steps of the plan")
    parser.add_argument("--repeats", type=int, default=5, help="number of runs; the fastest is shown")
    args = parser.parse_args()
    plan = random_plan(args.steps, 0)
    other, graph = shuffled(plan, 1), PlanGraph(plan)
    work: dict[str, Callable[[], Any]] = {
        "check (Plan)": lambda: Plan(steps=plan.steps),
        "build (PlanGraph)": lambda: PlanGraph(plan),
        "next step, for every step": lambda: walk(graph),
        "critical path": graph.critical_path,
        "diff": lambda: diff(plan, other),
        "JSON": graph.to_json,
        "GraphML": graph.to_graphml,
        "Mermaid": graph.to_mermaid,
    }
    print(f"{args.steps} steps, {graph.graph.number_of_edges()} dependencies; milliseconds, best of {args.repeats}")
    for name, run in work.items():
        times = []
        for _ in range(args.repeats):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        print(f"{name:<30} {1000 * min(times):8.1f}")


if __name__ == "__main__":
    main()
