"""How a run's kept episodes were chosen, read from their tasks."""

from __future__ import annotations

from collections.abc import Sequence

from hiplan.report.tables import Panels
from hiplan.text import clean
from hiplan.trace import Episode


def how_chosen(episodes: Sequence[Episode], panels: Panels) -> str:
    """A sentence: which panels' first tasks they are, or that nothing tells.

    Episodes that are no panel's first tasks in order may have been picked by their outcome.
    """
    rest, found = [episode.task.id for episode in episodes], []
    tasks = {name: [task.id for task in panel.tasks] for name, panel in panels.items()}
    while rest:
        shared = {name: _common(rest, ids) for name, ids in tasks.items()}
        name = max(shared, key=lambda name: shared[name], default=None)
        if name is None or shared[name] == 0:
            return "How these episodes were chosen is not recorded; they may be better or worse than most."
        found.append(f"the first {shared[name]} of {clean(name)}")
        rest = rest[shared[name] :]
    return f"Chosen by place, not by outcome: {' and '.join(found)}, in the panel's order." if found else ""


def _common(ids: Sequence[str], others: Sequence[str]) -> int:
    """How many of both are the same, counted from the first."""
    pairs = zip(ids, others, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(ids), len(others)))
