"""Checkpoints: whole or absent, equal for equal states, and named where they are broken."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from trainers import Stopped

from hiplan.errors import CheckpointError
from hiplan.training import checkpoint


def test_a_save_that_is_cut_short_anywhere_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop ``save_state`` at each call that touches the disk in turn; the newest whole one is the old or the new."""
    old, new = {"a": torch.zeros(3)}, {"a": torch.ones(3)}
    places = [(Path, "mkdir"), (Path, "write_text"), (os, "fsync"), (os, "replace")]
    outcomes, left = [], 0

    def until_spent(real: Any) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Stopped
            return real(*given, **options)

        return call

    class Read(dict[str, torch.Tensor]):
        """Its tensors are read as they are written to the file."""

        __getitem__ = until_spent(dict.__getitem__)

    for stop in range(20):
        folder, left, finished = tmp_path / str(stop), stop, False
        checkpoint.save_state(folder / "000001-0", old, {"n": 1})
        with monkeypatch.context() as patch, suppress(Stopped):
            for place, name in places:
                patch.setattr(place, name, until_spent(getattr(place, name)))
            checkpoint.save_state(folder / "000002-0", Read(new), {"n": 2})
            finished = True
        newest = checkpoint.load_latest(folder)
        assert newest is not None
        _, tensors, state = newest
        assert torch.equal(tensors["a"], old["a"] if state["n"] == 1 else new["a"])
        checkpoint.save_state(folder / "000002-0", new, {"n": 2})  # what the cut one left is no hindrance
        checkpoint.prune(folder, keep=1)
        assert [p.name for p in folder.glob("[0-9]*")] == ["000002-0"]
        outcomes.append(state["n"])
        if finished:
            break
    assert finished and outcomes == sorted(outcomes) and set(outcomes) == {1, 2} and len(outcomes) > 5


def test_equal_states_give_equal_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.zeros(2)}
    for name, given in (("1", tensors), ("2", dict(reversed(tensors.items())))):
        checkpoint.save_state(tmp_path / name, given, {"y": 1, "x": [2.5]})
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in "12")
    assert one == two and set(one) == {"state.json", "state.safetensors"}


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    assert checkpoint.load_latest(tmp_path) is None
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        checkpoint.load_state(tmp_path / "nowhere")
    checkpoint.save_state(tmp_path / "1", {"a": torch.zeros(1)}, {})
    (tmp_path / "1" / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        checkpoint.load_state(tmp_path / "1")
