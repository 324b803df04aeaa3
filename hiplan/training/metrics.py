"""The run's record: ``metrics.jsonl`` (what must be the same in a resumed run) and ``times.jsonl`` (what cannot be)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


class MetricsLog:
    """Appends rows to two JSONL files; ``length`` counts the metric rows, so that a resume can cut back to it."""

    def __init__(self, folder: Path | None, length: int = 0) -> None:
        self.rows: list[dict[str, Any]] = []
        self._metrics = folder / "metrics.jsonl" if folder else None
        self._times = folder / "times.jsonl" if folder else None
        self._before = 0.0  # seconds that earlier processes of the run took
        self._began = time.perf_counter()
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        if self._metrics and self._metrics.is_file():
            lines = self._metrics.read_text().splitlines(keepends=True)[:length]
            self.rows = [json.loads(line) for line in lines]
            beside = self._metrics.with_suffix(".tmp")
            beside.write_text("".join(lines))
            beside.replace(self._metrics)
        if self._times and self._times.is_file() and (known := self._times.read_text().splitlines()):
            self._before = float(json.loads(known[-1])["elapsed_s"])

    @property
    def elapsed(self) -> float:
        """Seconds of all processes that have worked on the run, those lost to a kill included up to their last row."""
        return self._before + time.perf_counter() - self._began

    @property
    def length(self) -> int:
        return len(self.rows)

    def add(self, row: dict[str, Any], **times: float) -> None:
        """Record a row; ``times`` (seconds) go to the other file, with the seconds that the run took so far."""
        row = {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}
        self.rows.append(row)
        if self._metrics and self._times:
            with self._metrics.open("a") as file:
                file.write(json.dumps(row) + "\n")
            with self._times.open("a") as file:
                clock = {"row": len(self.rows), "elapsed_s": round(self.elapsed, 3)}
                file.write(json.dumps(clock | {key: round(value, 3) for key, value in times.items()}) + "\n")
