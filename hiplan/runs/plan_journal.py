"""The journal of ``hiplan plans``: the settings, then each task with all plans sampled for it and their scores.

The journal is ``OUT.scores.jsonl``. ``OUT``, the plan file for training, follows from it and is written again from it
whenever the journal is opened.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from hiplan.coordination import PlanScore
from hiplan.envs.tasks import EnvName
from hiplan.errors import ConfigError
from hiplan.files import saving, write_text
from hiplan.task import Task
from hiplan.training.sources import PlanFileLine


class PlanSettings(BaseModel):
    """Everything that the plans depend on; the journal's first line.

    ``model``, ``judge``: their names. ``tries``: plans in a batch. ``rounds``: the most batches per task. ``batch``:
    tasks at once. ``tokens``: the most of a plan. ``reference``: whether the judge sees how the environment's oracle
    solves the task.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    judge: str = "rules"
    env: EnvName = "mixed"
    seed: int = 0
    tries: int = 4
    rounds: int = 3
    batch: int = 16
    tokens: int = 512
    reference: bool = False

    @property
    def strict(self) -> bool:
        """Whether all three scores must be 5: for a judge that sees no reference. The rules judge needs none."""
        return not (self.judge == "rules" or self.reference)


class Tried(BaseModel):
    """One sampled plan: numbered text, empty if it could not be parsed. ``why``: the reason if it has no scores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int
    plan: str
    passes: bool
    scores: PlanScore | None
    why: str = ""


class Line(BaseModel):
    """One task of the journal. ``kept``: index in ``plans``. ``left``: how many lines of its batch come after it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task
    kept: int | None
    plans: tuple[Tried, ...]
    left: int

    def for_training(self) -> list[str]:
        """Its line in the plan file, or no line if no plan was kept."""
        if self.kept is None:
            return []
        return [PlanFileLine(task=self.task, plan=self.plans[self.kept].plan).model_dump_json()]


class Journal:
    """Opens or starts the journal of a plan file. ``lines``: the tasks in it.

    Raises ``ConfigError`` for a plan file without a journal, for a journal with other settings, and for another file.
    """

    def __init__(self, out: Path, settings: PlanSettings) -> None:
        self.out, self.path = out, journal_of(out)
        self.lines: list[Line] = []
        if not self.path.exists() and out.exists():
            raise ConfigError(
                f"{str(out)!r} exists without its journal {str(self.path)!r}, so it cannot be resumed; move it away"
            )
        whole = self._read(settings) if self.path.exists() else 0
        with saving(self.path):
            out.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.truncate(whole)  # removes an incomplete batch, left by a kill
        if not whole:
            _append(self.path, [settings.model_dump_json()])
        write_text(out, "")
        _append(out, [text for line in self.lines for text in line.for_training()])

    def append(self, batch: Sequence[Line]) -> None:
        """Add a whole batch. It is on disk when this returns."""
        _append(self.path, [line.model_dump_json() for line in batch])
        _append(self.out, [text for line in batch for text in line.for_training()])
        self.lines += batch

    def _read(self, settings: PlanSettings) -> int:
        """Read all whole batches. Returns their size in bytes, with the first line."""
        complete = [row for row in self.path.read_bytes().splitlines(keepends=True) if row.endswith(b"\n")]
        if not complete:  # killed before the settings were written
            return 0
        first, *others = complete
        try:
            self._same(PlanSettings.model_validate_json(first), settings)
            rows = [Line.model_validate_json(row) for row in others]
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise ConfigError(f"{str(self.path)!r} is not the journal of a plan file ({why}); move it away") from None
        whole = max((i for i, row in enumerate(rows, 1) if row.left == 0), default=0)
        self.lines = rows[:whole]
        return len(first) + sum(map(len, others[:whole]))

    def _same(self, old: PlanSettings, new: PlanSettings) -> None:
        for name, value in old:
            if value != getattr(new, name):
                raise ConfigError(
                    f"{str(self.path)!r} was started with {name} {value!r}, not {getattr(new, name)!r}; "
                    "give the same settings to resume it, or another OUT"
                )


def journal_of(out: Path) -> Path:
    """The path of a plan file's journal."""
    return out.with_name(f"{out.name}.scores.jsonl")


def _append(path: Path, rows: Sequence[str]) -> None:
    with saving(path), path.open("a", encoding="utf-8") as file:
        file.writelines(f"{row}\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())
