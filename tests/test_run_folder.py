"""A run folder: one process at a time, and a resume that loses no row and stops at no half-written line."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles import Letters, letters, random_model

from hiplan.envs import TaskSuite
from hiplan.errors import CheckpointError, ConfigError
from hiplan.training import checkpoint
from hiplan.training.config import Stage, TrainConfig
from hiplan.training.folder import LOCK, FolderLock, lock_folder
from hiplan.training.trainer import ProgressiveTrainer

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
        with pytest.raises(ConfigError, match=rf"run' is in use by process {first.pid} on .*; wait for it to end"):
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


# -- what a stopped run left behind --------------------------------------------------------------


STAGES = (
    Stage(name="executor", trains=("executor",), plans="oracle", iterations=3, learning_rate=0.01),
    Stage(name="planner", trains=("planner",), iterations=3, learning_rate=0.01),
)


def trainer(folder: Path) -> ProgressiveTrainer:
    """A run of six iterations with a checkpoint after each; the two newest are kept."""
    config = TrainConfig(stages=STAGES, groups=2, group_size=2, plan_tokens=4, action_tokens=4, turns=1)
    model = random_model(seed=1)
    suite = TaskSuite("letters", Letters, lambda rng: letters(1))
    return ProgressiveTrainer(model, suite, config=config, output_dir=folder, resume=True, checkpoint_every=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    trainer(folder).train()
    return folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped in its last iteration, with checkpoints after four and after five."""
    folder = tmp_path_factory.mktemp("stopped")
    run = trainer(folder)

    def on_iteration(row: dict[str, Any]) -> None:
        if row["iteration"] == 5:
            raise KeyboardInterrupt

    run.on_iteration = on_iteration
    with pytest.raises(KeyboardInterrupt):
        run.train()
    return folder


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def results(folder: Path) -> dict[str, bytes]:
    kept = [folder / "metrics.jsonl", *folder.glob("checkpoints/*/*")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}


@pytest.mark.parametrize("half", ['{"row": 6, "elap', "\n", "[]\n", '{"elapsed_s": "never"}\n', "null", "[" * 100_000])
def test_half_a_line_of_times_does_not_block_a_resume(run: Path, half: str) -> None:
    times = run / "times.jsonl"
    whole = times.read_text()
    with times.open("a") as file:
        file.write(half)
    log = trainer(run).metrics
    assert times.read_text() == whole and log.elapsed > 0
    log.add({"kind": "train"})
    assert [json.loads(line)["row"] for line in times.read_text().splitlines()] == [1, 2, 3, 4, 5, 6, 6]


@pytest.mark.parametrize(
    ("keep", "more", "left"),
    [
        (3, "", 3),
        (0, "", 0),
        (4, '{"kind": "tra', 4),
        (4, "[1]\n", 4),
        (4, "{" * 100_000 + "\n", 4),
        (4, '{"kind": "eval"}\n', 4),
    ],
)
def test_a_resume_does_not_lose_rows_silently(run: Path, keep: int, more: str, left: int) -> None:
    metrics = run / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:keep]) + more)
    before = results(run)
    with pytest.raises(CheckpointError) as caught:
        trainer(run)
    said = str(caught.value)
    assert f"metrics.jsonl' has {left} usable rows, but the checkpoint was saved after 5;" in said
    assert "delete the newest folder in" in said and "\n" not in said and results(run) == before
    metrics.unlink()
    with pytest.raises(CheckpointError, match="has 0 usable rows"):
        trainer(run)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"metrics": 1.5}, "metrics: Input should be a valid integer, got a number with a fractional part"),
        ({"metrics": -1}, "metrics: Input should be greater than or equal to 0"),
        ({"cursor": {"stage": "x"}}, "cursor.stage: Input should be a valid integer"),
        ({"cursor": {"stage": 9}}, "was written in stage 9, but the run has"),
        ({"seed": None}, "seed: Input should be a valid integer"),
    ],
)
def test_a_checkpoint_that_says_nonsense_is_refused(run: Path, change: dict[str, Any], why: str) -> None:
    for file in (run / "checkpoints").glob("*/state.json"):
        state = json.loads(file.read_text()) | change
        del state["sha256"]  # as in older ones
        file.write_text(json.dumps(state))
    with pytest.raises(CheckpointError) as caught:
        trainer(run)
    assert why in str(caught.value) and "\n" not in str(caught.value)


def test_rows_are_on_disk_before_the_checkpoint_that_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    trainer(tmp_path).train()
    rows = [name for name in done if name in ("metrics.jsonl", "state.json")]
    assert rows[:2] == ["metrics.jsonl", "state.json"] and rows.count("metrics.jsonl") == 6
    assert done[:2] == ["metrics.jsonl", tmp_path.name], "and the file's own entry in its folder"


# -- damaged checkpoints -------------------------------------------------------------------------


def newest(run: Path) -> tuple[Path, Path]:
    before, last = sorted((run / "checkpoints").iterdir())
    return before, last


def flip(file: Path, place: int = -3) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "a flipped bit in a tensor": lambda folder: flip(folder / "state.safetensors"),
    "a changed count": lambda folder: replace(folder / "state.json", '"warm": false', '"warm": true'),
    "cut short": lambda folder: os.truncate(folder / "state.safetensors", 1000),
    "empty": lambda folder: (folder / "state.json").write_text(""),
    "no object": lambda folder: (folder / "state.json").write_text("[]"),
    "nested": lambda folder: (folder / "state.json").write_text("[" * 100_000),
    "not UTF-8": lambda folder: (folder / "state.json").write_bytes(b"\xff"),
    "no tensors": lambda folder: (folder / "state.safetensors").unlink(),
}


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    finished: Path, run: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    before, last = newest(run)
    DAMAGE[damage](last)
    again = trainer(run)
    (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("hiplan")]
    assert (
        f"{str(last)!r} is not a complete checkpoint" in said and f"from the checkpoint before, {str(before)!r}" in said
    )
    assert "\n" not in said
    assert again.resumed and again.cursor.total == 4 and again.metrics.length == 4
    again.train()
    assert results(run) == results(finished)


@pytest.mark.parametrize("damage", DAMAGE)
def test_where_no_checkpoint_is_whole_the_cure_is_named(run: Path, damage: str) -> None:
    for folder in newest(run):
        DAMAGE[damage](folder)
    with pytest.raises(CheckpointError) as caught:
        trainer(run)
    said = str(caught.value)
    assert f"{str(newest(run)[1])!r} is not a complete checkpoint: " in said and "\n" not in said
    assert f"restore it from a copy, or delete {str(run / 'checkpoints')!r} to restart the run" in said


@pytest.mark.parametrize(
    "text",
    ["{}", '{"seed": 0}', '{"seed": 0, "metrics": "x", "cursor": {}}', '{"seed": 0, "metrics": 1, "cursor": []}'],
)
def test_a_state_of_something_else_is_refused(run: Path, text: str) -> None:
    for folder in newest(run):
        (folder / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match="does not hold the state of a run"):
        trainer(run)


def test_checkpoints_without_a_checksum_can_be_resumed(run: Path) -> None:
    for folder in newest(run):
        state = json.loads((folder / "state.json").read_text())
        del state["sha256"]
        (folder / "state.json").write_text(json.dumps(state))
    again = trainer(run)
    assert again.resumed and again.cursor.total == 5


def test_half_a_deleted_checkpoint_does_not_pass_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saving under a name that is taken deletes the old folder; a kill in the midst of that."""
    folder = tmp_path / "000000-0"
    checkpoint.save_state(folder, {"a": torch.zeros(1)}, {})

    def killed(path: Path, **_: object) -> None:
        if path == folder:
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save_state(folder, {"a": torch.ones(1)}, {})
    assert checkpoint.load_latest(tmp_path) is None
