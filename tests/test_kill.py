"""A run that is killed again and again, with SIGKILL and at any moment, ends as if nobody had."""

import multiprocessing
import random
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import kill_worker
import pytest

KILLS = 8
LONG = 300  # seconds; only a run that hangs takes so long


def begin(folder: Path) -> ForkServerProcess:
    """A process of its own that trains in ``folder``; forked from a server that has imported all it needs."""
    process = multiprocessing.get_context("forkserver").Process(target=kill_worker.train, args=(folder,))
    process.start()
    return process


def rows(folder: Path) -> int:
    log = folder / "metrics.jsonl"
    return log.read_text().count("\n") if log.is_file() else 0


def results(folder: Path) -> dict[str, bytes]:
    found = [folder / "metrics.jsonl", *folder.glob("checkpoints/*/*"), *folder.glob("adapters/*/*.safetensors")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """An undisturbed run, and the seconds it took."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        multiprocessing.get_context("forkserver").set_forkserver_preload(["kill_worker"])
        begin(tmp_path_factory.mktemp("first")).join(LONG)  # the server's imports are not counted
    folder, began = tmp_path_factory.mktemp("unbroken"), time.monotonic()
    process = begin(folder)
    process.join(LONG)
    assert process.exitcode == 0
    return folder, time.monotonic() - began


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_run_ends_as_if_it_had_not_been(unbroken: tuple[Path, float], seed: int, tmp_path: Path) -> None:
    expected, seconds = unbroken
    rng, total, lengths = random.Random(seed), rows(expected), []
    for _ in range(KILLS):
        process, goal = begin(tmp_path), rng.randint(1, total - 1)
        while process.is_alive() and rows(tmp_path) < goal:
            time.sleep(0.002)
        process.join(timeout=rng.uniform(0.0, 0.5) * seconds / total)
        process.kill()  # does nothing to one that has ended
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode == 0:
            break
        lengths.append(rows(tmp_path))
    last = begin(tmp_path)
    last.join(LONG)
    assert last.exitcode == 0
    assert max(lengths) > 0  # it was killed, and not each time before it had begun
    assert results(tmp_path) == results(expected)
    assert len(results(expected)) == 1 + 2 * 2 + 2
