"""Checkpoints that a kill cannot break: written beside, flushed to disk, then renamed into place.

safetensors for tensors and JSON for everything else. Equal states give equal bytes: nothing in them
depends on the time of day.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hiplan.errors import CheckpointError
from hiplan.models.weights import read_tensors, save_tensors


def write_text(path: Path, text: str) -> None:
    """Replace a file's text in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text)
    _flush(beside)
    os.replace(beside, path)


def save_state(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write ``folder`` with ``state.safetensors`` and ``state.json`` in one step, replacing an older one."""
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    save_tensors(tensors, beside / "state.safetensors")
    (beside / "state.json").write_text(json.dumps(state, indent=2, sort_keys=True) + "\n")
    for file in beside.iterdir():
        _flush(file)
    if folder.exists():  # rename cannot replace a folder that holds files
        shutil.rmtree(folder)
    os.replace(beside, folder)
    _flush(folder.parent)


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_state`` wrote. Raises ``CheckpointError``."""
    try:
        state = json.loads((folder / "state.json").read_text())
        return read_tensors(folder / "state.safetensors"), state
    except (OSError, ValueError, CheckpointError) as error:
        raise CheckpointError(f"{str(folder)!r} is not a whole checkpoint: {error}") from None


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder of numbered ones."""
    numbered = sorted(p for p in folder.glob("[0-9]*") if (p / "state.json").is_file())
    return numbered[-1] if numbered else None


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` numbered checkpoints."""
    for old in sorted(folder.glob("[0-9]*"))[:-keep]:
        shutil.rmtree(old)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
