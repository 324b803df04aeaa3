"""Run an agent over a panel and say how sure one can be of the figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hiplan.coordination.adherence import adherence, scores
from hiplan.evaluation.statistics import wilson
from hiplan.executors import ExecutorProtocol
from hiplan.model import Decoding, derive_seed
from hiplan.planners import PlannerProtocol
from hiplan.sampler import Job, Sampler
from hiplan.task import Task
from hiplan.trace import Episode

BATCH = 64  # episodes at once: their caches take memory
TEMPERATURES: dict[str, float] = {"greedy": 0.0, "t0.3": 0.3, "t0.7": 0.7, "t1.0": 1.0}


@dataclass(frozen=True)
class EvalResult:
    """One agent on one panel. ``episodes`` stand in the panel's order."""

    episodes: list[Episode]

    @property
    def success(self) -> float:
        """Share of tasks solved."""
        return sum(e.success for e in self.episodes) / max(1, len(self.episodes))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval over tasks (it does not cover the spread over training seeds)."""
        return wilson(sum(e.success for e in self.episodes), len(self.episodes))

    @property
    def adherence(self) -> float | None:
        """Mean share of actions on plan, over episodes with a plan."""
        shares = [share for e in self.episodes if (share := adherence(e)) is not None]
        return sum(shares) / len(shares) if shares else None

    @property
    def coverage(self) -> float | None:
        """Mean share of the steps of the last plan that were done, over episodes with a plan."""
        shares = [share for e in self.episodes if (share := scores(e).coverage) is not None]
        return sum(shares) / len(shares) if shares else None

    @property
    def turns(self) -> float:
        """Mean actions per episode."""
        return sum(len(e.turns) for e in self.episodes) / max(1, len(self.episodes))


@dataclass(frozen=True)
class Cell:
    """One thing to measure: an agent with a decoding on tasks."""

    tasks: Sequence[Task]
    planner: PlannerProtocol
    executor: ExecutorProtocol
    decoding: Decoding


def evaluate(
    sampler: Sampler, cells: Sequence[Cell], seed: int = 0, on_done: Callable[[Episode], None] | None = None
) -> list[EvalResult]:
    """One episode per task of every cell, ``BATCH`` at a time; the same seed gives the same episodes.

    Cells share the seed of a task, so that they can be compared pairwise.
    """
    jobs = [
        Job(task, cell.planner, cell.executor, derive_seed("evaluate", seed, task.id), cell.decoding)
        for cell in cells
        for task in cell.tasks
    ]
    parts = [jobs[start : start + BATCH] for start in range(0, len(jobs), BATCH)]
    episodes = iter([episode for part in parts for episode in sampler.run(part, on_done)])
    return [EvalResult([next(episodes) for _ in cell.tasks]) for cell in cells]
