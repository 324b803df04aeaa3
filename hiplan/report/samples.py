"""How a run's stored episodes were selected, inferred from their tasks."""

from __future__ import annotations

from collections.abc import Sequence

from hiplan.report.tables import Panels
from hiplan.text import clean
from hiplan.trace import Episode


def selection_note(episodes: Sequence[Episode], panels: Panels) -> str:
    """A sentence that says whether the episodes are those of the panels' first tasks; empty without episodes.

    Otherwise they may have been selected by their outcome.
    """
    rest, found = [episode.task.id for episode in episodes], []
    tasks = {name: [task.id for task in panel.tasks] for name, panel in panels.items()}
    while rest:
        shared = {name: _common(rest, ids) for name, ids in tasks.items()}
        name = max(shared, key=lambda name: shared[name], default=None)
        if name is None or shared[name] == 0:
            return "How these episodes were selected is not recorded; they may not be representative."
        found.append(f"the first {shared[name]} of {clean(name)}")
        rest = rest[shared[name] :]
    return f"Selected by position, not by outcome: {' and '.join(found)}, in the order of the panel." if found else ""


def _common(ids: Sequence[str], others: Sequence[str]) -> int:
    """The length of the common prefix."""
    pairs = zip(ids, others, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(ids), len(others)))
