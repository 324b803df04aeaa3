"""Training runs that are killed with SIGKILL at random moments and resumed end with an undisturbed run's files."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import kill_worker
from rich.console import Console

from hiplan.runs.job import Job
from hiplan.runs.settings import read_run, resolve

HANGS = 300  # seconds; only a run that hangs takes so long
MANY = 10  # problems, after which no more runs are killed
OTHER = ("times.jsonl", "times.json", "report.html", ".lock")  # hold wall times or a process's number, or show them
SMALL = (
    "threads=1", "panel_tasks=2", "decodings=[greedy]", "eval_turns=3", "weights.lora={rank: 2, alpha: 4}",
    "train.groups=2",
    "train.group_size=2", "train.updates=1", "train.turns=3", "train.plan_tokens=24", "train.action_tokens=8",
    "train.stages.executor.iterations=3", "train.stages.planner.iterations=3", "train.stages.joint.iterations=6",
)  # fmt: skip


def main_job(folder: Path) -> None:
    """The main job on the shipped model: measured, trained in three stages, measured again, reported."""
    settings = read_run(folder) if (folder / "config.yaml").is_file() else resolve(None, list(SMALL))
    Job(settings, folder, Console(quiet=True)).run()


@dataclass(frozen=True)
class Subject:
    """A run: ``work`` starts or resumes it in a folder and finishes it. ``kills``: of one run at most."""

    name: str
    work: Callable[[Path], None]
    kills: int
    share: int


SUBJECTS = (Subject("trainer", kill_worker.train, 9, 3), Subject("main job", main_job, 6, 2))


@dataclass
class Killed:
    """What became of one subject's runs; ``problems``: files that differ, and processes that failed."""

    subject: str
    runs: int = 0
    kills: int = 0
    files: int = 0
    problems: list[str] = field(default_factory=list)


def begin(subject: Subject, folder: Path) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("forkserver").Process(target=subject.work, args=(folder,))
    process.start()
    return process


def rows(folder: Path) -> int:
    log = folder / "metrics.jsonl"
    return log.read_bytes().count(b"\n") if log.is_file() else 0


def files(folder: Path) -> dict[str, bytes]:
    """All files of a run, without those that hold times or the number of a process."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name not in OTHER}


def differences(expected: dict[str, bytes], got: dict[str, bytes]) -> list[str]:
    return sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))


def killed_run(
    subject: Subject, folder: Path, kills: int, seconds: float, total: int, rng: random.Random
) -> tuple[int, str]:
    """Kill a run so often, half of the times after a number of rows and half after a time; then let it end.

    ``seconds`` and ``total`` rows: of the undisturbed run. Returns how often it was killed, and what went wrong.
    """
    done = 0
    while done < kills:
        process, began = begin(subject, folder), time.monotonic()
        goal, wait = rng.randint(1, total), rng.random() * seconds
        if rng.random() < 0.5:
            while process.is_alive() and rows(folder) < goal and time.monotonic() < began + HANGS:
                time.sleep(0.005)
            wait = rng.random() * seconds / total
            began = time.monotonic()
        process.join(max(0.0, began + wait - time.monotonic()))
        process.kill()  # does nothing to one that has ended
        process.join()
        if process.exitcode == 0:
            return done, ""
        if process.exitcode != -signal.SIGKILL:
            return done, f"a resumed run failed after {done} kills (exit code {process.exitcode})"
        done += 1
    last = begin(subject, folder)
    last.join(HANGS)
    if last.exitcode is None:
        last.kill()
    return done, "" if last.exitcode == 0 else f"a resumed run failed after {done} kills (exit code {last.exitcode})"


def kill_runs(
    subject: Subject, kills: int, seed: int, parallel: int, place: Path, on_kills: Callable[[int], None]
) -> Killed:
    """Kill runs of a subject until there were so many kills; ``on_kills`` is told of them."""
    found = Killed(subject.name)
    warm, unbroken = (place / f"{subject.name}-{name}" for name in ("warm", "unbroken"))
    for folder in (warm, unbroken):  # the first one also pays for imports
        began, first = time.monotonic(), begin(subject, folder)
        first.join(HANGS)
        if first.exitcode != 0:
            found.problems.append(f"an undisturbed run failed (exit code {first.exitcode})")
            return found
    seconds, expected = time.monotonic() - began, files(unbroken)
    found.files = len(expected)
    if same := differences(expected, files(warm)):
        found.problems.append(f"two undisturbed runs differ in {', '.join(same[:3])}")

    def one(number: int, wanted: int) -> tuple[int, str]:
        folder = place / f"{subject.name}-{number}"
        chance = random.Random(f"{seed}/{subject.name}/{number}")
        done, problem = killed_run(subject, folder, wanted, seconds, rows(unbroken), chance)
        different = [] if problem else differences(expected, files(folder))
        shutil.rmtree(folder)
        return done, problem or (f"run {number} differs in {', '.join(different[:3])}" if different else "")

    with ThreadPoolExecutor(parallel) as pool:
        while found.kills < kills and len(found.problems) < MANY:
            left = [min(subject.kills, kills - found.kills - subject.kills * i) for i in range(parallel)]
            started = [pool.submit(one, found.runs + i, n) for i, n in enumerate(left) if n > 0]
            for future in started:
                done, problem = future.result()
                found.runs, found.kills = found.runs + 1, found.kills + done
                found.problems += [problem] if problem else []
                on_kills(done)
    return found


def split_kills(kills: int) -> Sequence[tuple[Subject, int]]:
    """How many of the kills each subject gets."""
    whole = sum(subject.share for subject in SUBJECTS)
    first = [kills * subject.share // whole for subject in SUBJECTS[1:]]
    return list(zip(SUBJECTS, (kills - sum(first), *first), strict=True))
