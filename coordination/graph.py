"""The plan as a graph: an edge from each step to the steps that depend on it (networkx)."""

from __future__ import annotations

from collections.abc import Collection

import networkx as nx

from hiplan.plan import Plan


class PlanGraph:
    """A directed acyclic graph over step ids, in plan order."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.graph: nx.DiGraph[int] = nx.DiGraph()
        self.graph.add_nodes_from((step.id, {"label": step.description}) for step in plan.steps)
        self.graph.add_edges_from((before, step.id) for step in plan.steps for before in step.after)

    def ready(self, done: Collection[int]) -> tuple[int, ...]:
        """Ids of steps that are not done and whose dependencies all are, in plan order."""
        return tuple(
            step.id for step in self.plan.steps if step.id not in done and all(before in done for before in step.after)
        )

    def layers(self) -> list[list[int]]:
        """Step ids by the longest chain of dependencies before them."""
        return [sorted(layer) for layer in nx.topological_generations(self.graph)]

    def critical_path(self) -> list[int]:
        """A longest chain of steps that depend on each other."""
        return list(nx.dag_longest_path(self.graph))
