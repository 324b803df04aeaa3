"""What stands in for a study's runs and cells in tests: a module of its own, so that other processes can import it."""

import time
from pathlib import Path
from typing import Any


def play(
    arm: str, seed: int, rate: float, settings: dict[str, Any], folder: str, reliance: str | None = None
) -> dict[str, Any]:
    """Notes that it was asked, and gives a summary; seed 13 fails."""
    runs = Path(folder).parent
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / "launched.txt").open("a") as file:
        file.write(f"{Path(folder).name} {settings['train']['stages'][-1]['env_steps']}\n")
    if seed == 13:
        raise RuntimeError(f"{arm} failed")
    row = {"agent": "plan", "decoding": "greedy", "success": 0.5, "solved": "10"}
    places = [(stage, panel) for stage in ("base", "final") for panel in ("train", "dev", "heldout")]
    return {
        "arm": arm, "seed": seed, "rate": rate, "env_steps": 7,
        "evals": [row | {"stage": stage, "panel": panel} for stage, panel in places],
    }  # fmt: skip


def launched(runs: Path) -> list[str]:
    """What was launched since the last call."""
    notes = runs / "launched.txt"
    found = notes.read_text().splitlines() if notes.exists() else []
    notes.unlink(missing_ok=True)
    return sorted(found)


def doubled(n: int) -> dict[str, Any]:
    """What a cell makes; another process imports it."""
    return {"twice": 2 * n}


def sometimes(n: int, folder: str) -> dict[str, Any]:
    """Fails for 0, once another has begun, which then takes a while."""
    begun = Path(folder) / "begun"
    if n == 0:
        while not begun.exists():
            time.sleep(0.05)
        raise ValueError("no answer")
    begun.touch()
    time.sleep(1)
    return doubled(n)
