"""Atomic checkpoints: written to a temporary folder, flushed to disk, then renamed into place.

Tensors are stored as safetensors and everything else as JSON, with a checksum over both. Equal states give equal bytes;
no timestamps are stored.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from hiplan.errors import CheckpointError
from hiplan.files import flush, read_object, saving
from hiplan.models.adapters import read_tensors, save_tensors
from hiplan.text import clean

_log = logging.getLogger(__name__)
_SUM = "sha256"


def save_state(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write ``state.safetensors`` and ``state.json`` to ``folder`` atomically, replacing an older checkpoint.

    Raises ``UserError`` if the disk is full or not writable; an older checkpoint then remains.
    """
    beside = folder.with_name(f".{folder.name}.tmp")
    with saving(folder, SafetensorError):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        save_tensors(tensors, beside / "state.safetensors")
        known = {**state, _SUM: _checksum(beside / "state.safetensors", state)}
        (beside / "state.json").write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
        for file in beside.iterdir():
            flush(file)
        if folder.exists():  # rename cannot replace a folder with files
            (folder / "state.json").unlink(missing_ok=True)  # first, so that a partial folder is not a checkpoint
            shutil.rmtree(folder)
        os.replace(beside, folder)
        flush(folder.parent)


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_state`` wrote. Raises ``CheckpointError`` if it is damaged.

    Checkpoints of earlier versions have no checksum and are not verified.
    """
    try:
        state = read_object(folder / "state.json", wrong=CheckpointError)
        tensors = read_tensors(folder / "state.safetensors")
        known = state.pop(_SUM, None)
        if known is not None and known != _checksum(folder / "state.safetensors", state):
            raise CheckpointError("its checksum does not match its content")
        return tensors, state
    except (OSError, CheckpointError) as error:
        raise CheckpointError(f"{str(folder)!r} is not a complete checkpoint: {error}") from None


def load_latest(folder: Path) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
    """Load the newest complete checkpoint in a folder of numbered ones: its path, tensors and state; ``None`` if empty.

    A damaged checkpoint is skipped with a warning. Raises ``CheckpointError`` if all are damaged.
    """
    damage: CheckpointError | None = None
    for path in sorted((p for p in folder.glob("[0-9]*") if (p / "state.json").is_file()), reverse=True):
        try:
            tensors, state = load_state(path)
        except CheckpointError as error:
            damage = damage or error
            continue
        if damage:
            _log.warning("%s; the run resumes from the checkpoint before, %r", clean(str(damage)), str(path))
        return path, tensors, state
    if damage:
        raise CheckpointError(
            f"{damage}; there is no complete checkpoint before it; restore it from a copy, or delete {str(folder)!r} "
            "to restart the run"
        )
    return None


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` numbered checkpoints."""
    for old in sorted(folder.glob("[0-9]*"))[:-keep]:
        shutil.rmtree(old)


def _checksum(file: Path, state: Mapping[str, Any]) -> str:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256")
    digest.update(json.dumps(state, sort_keys=True).encode())
    return digest.hexdigest()
