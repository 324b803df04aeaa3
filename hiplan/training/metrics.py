"""A run's logs: ``metrics.jsonl``, which a resumed run reproduces exactly, and ``times.jsonl`` with wall times."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, FiniteFloat

from hiplan.errors import CheckpointError
from hiplan.files import append_line, read_text, write_text


class _Row(BaseModel):
    """The field of every row; strict, so that a string is never read as a number."""

    model_config = ConfigDict(strict=True)

    kind: str


class _Train(_Row):
    """The fields of a training row that reports use."""

    stage: str = ""
    iteration: int = 0
    env_steps: int | None = None


class _Eval(_Row):
    """The fields of an evaluation row that reports use."""

    stage: str
    panel: str
    success: FiniteFloat
    iteration: int = 0
    agent: str = ""
    decoding: str = ""
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    n: int = 0


_KINDS: dict[str, type[_Row]] = {"train": _Train, "eval": _Eval}


def check_row(row: object) -> None:
    """Raises pydantic's ``ValidationError`` if ``row`` is not a row that reports can use."""
    _KINDS.get(_Row.model_validate(row).kind, _Row).model_validate(row)


class MetricsLog:
    """Appends rows to the two JSONL files; ``length``: the number of metric rows to keep when a run resumes.

    ``add`` flushes to disk, so that all rows of a checkpoint are written before it. Raises ``CheckpointError`` if the
    file has fewer than ``length`` rows.
    """

    def __init__(self, folder: Path | None, length: int = 0) -> None:
        self.rows: list[dict[str, Any]] = []
        self._metrics = folder / "metrics.jsonl" if folder else None
        self._times = folder / "times.jsonl" if folder else None
        self._before = 0.0  # seconds that earlier processes of the run took, up to their last row
        self._began = time.perf_counter()
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        if self._metrics:
            lines = _lines(self._metrics)
            self.rows = _counted(self._metrics, lines, length)
            _rewrite(self._metrics, lines[:length])
        if self._times:
            known = [(line, seconds) for line in _lines(self._times) if (seconds := _elapsed(line)) is not None]
            _rewrite(self._times, [line for line, _ in known])  # without a partial line of a killed process
            self._before = known[-1][1] if known else 0.0

    @property
    def elapsed(self) -> float:
        """Wall-clock seconds of the run over all its processes; a killed process counts up to its last row."""
        return self._before + time.perf_counter() - self._began

    @property
    def length(self) -> int:
        return len(self.rows)

    def add(self, row: dict[str, Any], **times: float) -> None:
        """Append a metric row; ``times`` (seconds) go to ``times.jsonl`` with the elapsed seconds of the run."""
        row = {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}
        self.rows.append(row)
        if self._metrics and self._times:
            append_line(self._metrics, json.dumps(row))
            clock = {"row": len(self.rows), "elapsed_s": round(self.elapsed, 3)}
            append_line(self._times, json.dumps(clock | {key: round(value, 3) for key, value in times.items()}))


def _lines(path: Path) -> list[str]:
    return read_text(path, "log", CheckpointError).splitlines() if path.exists() else []


def _rewrite(path: Path, lines: Sequence[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    if path.exists() and text != read_text(path):
        write_text(path, text)


def _counted(path: Path, lines: Sequence[str], length: int) -> list[dict[str, Any]]:
    """The first ``length`` rows. Raises ``CheckpointError`` if there are fewer."""
    rows: list[dict[str, Any]] = []
    for line in lines[:length]:
        try:
            row = json.loads(line)
            check_row(row)
        except (ValueError, RecursionError):  # pydantic's ValidationError is a ValueError
            break
        rows.append(row)
    if len(rows) < length:
        raise CheckpointError(
            f"{str(path)!r} has {len(rows)} usable rows, but the checkpoint was saved after {length}; restore the "
            f"file from a copy, or delete the newest folder in {str(path.parent / 'checkpoints')!r} to resume before it"
        )
    return rows


def _elapsed(line: str) -> float | None:
    """The elapsed seconds in a row of ``times.jsonl``; ``None`` if the row is not valid."""
    try:
        return float(json.loads(line)["elapsed_s"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
