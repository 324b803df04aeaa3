"""Run agents on panels of tasks; success rates come with confidence intervals."""

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

BATCH = 64  # episodes played at once; limits the memory of their KV caches
TEMPERATURES: dict[str, float] = {"greedy": 0.0, "t0.3": 0.3, "t0.7": 0.7, "t1.0": 1.0}


@dataclass(frozen=True)
class EvalResult:
    """The result of one agent on one panel; ``episodes`` are in the order of the tasks."""

    episodes: list[Episode]

    @property
    def success(self) -> float:
        """Share of tasks solved."""
        return sum(e.success for e in self.episodes) / max(1, len(self.episodes))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval over tasks; it does not cover the variation over training seeds."""
        return wilson(sum(e.success for e in self.episodes), len(self.episodes))

    @property
    def adherence(self) -> float | None:
        """Mean share of actions on plan, over the episodes with a plan; ``None`` without any."""
        shares = [share for e in self.episodes if (share := adherence(e)) is not None]
        return sum(shares) / len(shares) if shares else None

    @property
    def coverage(self) -> float | None:
        """Mean share of done steps of the last plan, over the episodes with a plan; ``None`` without any."""
        shares = [share for e in self.episodes if (share := scores(e).coverage) is not None]
        return sum(shares) / len(shares) if shares else None

    @property
    def turns(self) -> float:
        """Mean number of actions per episode."""
        return sum(len(e.turns) for e in self.episodes) / max(1, len(self.episodes))


@dataclass(frozen=True)
class Cell:
    """One evaluation: a planner and an executor with a decoding on tasks."""

    tasks: Sequence[Task]
    planner: PlannerProtocol
    executor: ExecutorProtocol
    decoding: Decoding


def evaluate(
    sampler: Sampler, cells: Sequence[Cell], seed: int = 0, on_done: Callable[[Episode], None] | None = None
) -> list[EvalResult]:
    """Play one episode per task of every cell and return one result per cell.

    All cells use the same seed for the same task, so that they can be compared task by task. ``on_done`` is called as
    each episode ends.
    """
    jobs = [
        Job(task, cell.planner, cell.executor, derive_seed("evaluate", seed, task.id), cell.decoding)
        for cell in cells
        for task in cell.tasks
    ]
    parts = [jobs[start : start + BATCH] for start in range(0, len(jobs), BATCH)]
    episodes = iter([episode for part in parts for episode in sampler.run(part, on_done)])
    return [EvalResult([next(episodes) for _ in cell.tasks]) for cell in cells]
