"""The dependency graph of a plan (networkx): an edge leads from each step to every step that depends on it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping

import networkx as nx

from hiplan.plan import Plan, StepStatus

Statuses = Mapping[int, StepStatus]
MARKS: dict[StepStatus, str] = {
    StepStatus.OPEN: "○",
    StepStatus.ACTIVE: "▶",
    StepStatus.DONE: "✓",
    StepStatus.FAILED: "✗",
}


class PlanGraph:
    """A directed acyclic graph over step ids, in plan order.

    It depends on the plan only; the methods take the done steps as an argument.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.graph: nx.DiGraph[int] = nx.DiGraph()
        self.graph.add_nodes_from((step.id, {"label": step.description}) for step in plan.steps)
        self.graph.add_edges_from((before, step.id) for step in plan.steps for before in step.after)

    def ready(self, done: Collection[int]) -> tuple[int, ...]:
        """Ids of the steps that are not done and whose dependencies are all done, in plan order."""
        return tuple(
            step.id for step in self.plan.steps if step.id not in done and all(before in done for before in step.after)
        )

    def next(self, done: Collection[int]) -> int | None:
        """The first ready step in plan order; ``None`` if all steps are done."""
        return next(iter(self.ready(done)), None)

    def progress(self, done: Collection[int]) -> float:
        """Share of the steps that are done."""
        return sum(step.id in done for step in self.plan.steps) / len(self.plan.steps)

    def layers(self) -> list[list[int]]:
        """Step ids by the longest chain of dependencies before them."""
        return [sorted(layer) for layer in nx.topological_generations(self.graph)]

    def critical_path(self, done: Collection[int] = ()) -> list[int]:
        """A longest chain of dependent steps among those that are not done."""
        return list(nx.dag_longest_path(self.graph.subgraph([i for i in self.graph if i not in done])))

    # -- export ------------------------------------------------------------------------------

    def to_json(self, statuses: Statuses | None = None) -> str:
        """JSON in networkx's node-link format: ``nodes`` (id, label, status) and ``edges`` (source, target)."""
        return json.dumps(nx.node_link_data(self._marked(statuses), edges="edges"), ensure_ascii=False)

    def to_graphml(self, statuses: Statuses | None = None) -> str:
        """GraphML, for tools such as Gephi and yEd; characters that XML forbids become ``?``."""
        graph = self._marked(statuses)
        for _, known in graph.nodes(data=True):
            known["label"] = _NOT_XML.sub("?", known["label"])
        return "\n".join(nx.generate_graphml(graph)) + "\n"

    def to_mermaid(self, statuses: Statuses | None = None) -> str:
        """A Mermaid flowchart, which GitHub renders; symbol, colour and border show the status."""
        lines = ["flowchart TD"]
        for i, known in self._marked(statuses).nodes(data=True):
            status = StepStatus(known["status"])
            lines.append(f'    s{i}["{MARKS[status]} {i}. {_mermaid(known["label"])}"]:::{status}')
        lines += [f"    s{before} --> s{after}" for before, after in self.graph.edges]
        return "\n".join([*lines, *_CLASSES]) + "\n"

    def _marked(self, statuses: Statuses | None) -> nx.DiGraph[int]:
        graph = self.graph.copy()
        for i, known in graph.nodes(data=True):
            known["status"] = str((statuses or {}).get(i, StepStatus.OPEN))
        return graph


_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CLASSES = (
    "    classDef open fill:#ffffff,stroke:#555555",
    "    classDef active fill:#fff3c4,stroke:#8a6d00,stroke-width:3px",
    "    classDef done fill:#bcdcf0,stroke:#0b4f7d",
    "    classDef failed fill:#ffffff,stroke:#b33c00,stroke-width:3px,stroke-dasharray:6 3",
)


def _mermaid(text: str) -> str:
    """Untrusted text as a label: characters that could end the label or start markup become numeric entities."""
    return re.sub(r"[^\w .,:;!?'/()+-]|;", lambda m: f"#{ord(m[0])};", text)
