"""Cells of studies, made by hand: what a run or a measurement would have left."""

from collections.abc import Mapping
from typing import Any

from hiplan.envs.tasks import named_panel

TASKS = 4
ENVIRONMENTS = {kind: [task.env for task in named_panel(f"mixed-{kind}-0-4").tasks] for kind in ("train", "heldout")}


def summary(
    arm: str, seed: int, solved: dict[str, str], rate: float = 1.0, base: str = "1000", agent: str = "plan"
) -> dict[str, Any]:
    """A cell whose joint stage (and end) solved these of the panels' four tasks."""

    def row(stage: str, panel: str, bits: str, agent: str) -> dict[str, Any]:
        share = bits.count("1") / len(bits)
        return {"stage": stage, "panel": panel, "agent": agent, "decoding": "greedy", "success": share, "solved": bits}

    evals = [row(stage, panel, bits, agent) for stage in ("joint", "final") for panel, bits in solved.items()]
    evals += [row("base", panel, base, agent) for panel in solved]
    panels = {}
    for kind in ("train", "dev", "heldout"):
        panel = named_panel(f"mixed-{kind}-0-{TASKS}")
        panels[panel.name] = {"panel": kind, "hash": panel.hash, "tasks": TASKS}
    return {
        "arm": arm, "seed": seed, "rate": rate, "config": "x", "panels": panels, "env_steps": 100, "evals": evals,
        "parameters": {"total": 10, "trained": 5}, "wall_s": 60.0, "memory_mb": 900,
    }  # fmt: skip


def measured(panel: str, **more: Any) -> dict[str, Any]:
    """A cell of ``diagnose`` or ``policies`` on the panel's four tasks."""
    about = {"env": "mixed", "panel": panel, "tasks": TASKS}
    return {"about": about | more.pop("about", {}), "panel": named_panel(f"mixed-{panel}-0-{TASKS}").hash, **more}


def under(solved: Mapping[str, str]) -> dict[str, Any]:
    """Results under these conditions."""
    costs = {"calls": 2.0, "read": 30.0, "written": 9.0, "turns": 3.0, "revisions": 0.5}
    return {
        name: {"solved": bits, "success": bits.count("1") / len(bits), "adherence": 0.5, "coverage": 0.25, **costs}
        for name, bits in solved.items()
    }
