"""A run folder: one process at a time, and a resume that loses no row and stops at no half-written line."""

import gc
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hiplan.errors import ConfigError
from hiplan.training.folder import LOCK, FolderLock, lock_folder

ROOT = Path(__file__).resolve().parents[1]


def python(code: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


HOLD = """
import sys, time
from pathlib import Path
from hiplan.training.folder import lock_folder
lock = lock_folder(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(600)
"""


def test_a_second_process_is_refused_in_one_line_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with python(HOLD, str(folder)) as first:
        assert first.stdout is not None and first.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError, match=rf"run' is in use by process {first.pid} on .*; wait until it ends"):
            lock_folder(folder)
        with python(HOLD, str(folder)) as second:
            _, said = second.communicate(timeout=60)
        assert second.returncode == 1 and said.splitlines()[-1].startswith("hiplan.errors.ConfigError: the run folder")
        first.send_signal(signal.SIGKILL)
    lock = lock_folder(folder)
    assert (folder / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert lock_folder(tmp_path / "." / "run") is lock, "one process may have several trainers of a folder"


def test_a_lock_ends_with_its_last_owner(tmp_path: Path) -> None:
    lock = lock_folder(tmp_path)
    with pytest.raises(ConfigError, match="in use"):
        FolderLock(tmp_path)  # as another process would ask
    del lock
    gc.collect()
    FolderLock(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/run' cannot be written to: Not a directory"):
        lock_folder(tmp_path / "file" / "run")


SMALL = [
    part
    for text in (
        "train.stages.executor.iterations=1",
        "train.stages.planner.iterations=0",
        "train.stages.joint.iterations=0",
        "train.groups=1",
        "train.group_size=2",
        "train.turns=1",
        "eval_turns=1",
        "panel_tasks=2",
        "threads=1",
    )
    for part in ("--set", text)
]


def test_the_main_job_locks_its_folder(tmp_path: Path) -> None:
    """Two jobs on one folder, started together: one does all of the run, the other writes nothing."""
    command = [sys.executable, str(ROOT / "experiments" / "run.py"), *SMALL, "--out", str(tmp_path / "run")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300) for process in both]
    (code, (_, error)), (winner, _) = sorted(zip((p.returncode for p in both), said, strict=True), reverse=True)
    assert (code, winner) == (2, 0), said
    assert len(error.splitlines()) == 1 and ("is in use by process" in error or "already holds a run" in error)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    names = ("kind", "stage", "iteration", "panel", "agent", "decoding")
    keys = [tuple(row.get(name) for name in names) for row in rows]
    assert len(set(keys)) == len(keys) and sum(row["kind"] == "train" for row in rows) == 1
