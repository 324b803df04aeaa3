"""Collecting an iteration's episodes in groups: sample tasks, ask where plans come from, play.

A *collect function* decides what is played: ``refill`` repeats groups whose episodes all agree; turn limits that grow,
branching and paired rollouts are functions like it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hiplan.coordination import Judge, score_first_plans
from hiplan.model import derive_seed
from hiplan.planners import NoPlanner
from hiplan.sampler import Job, Sampler
from hiplan.task import Task
from hiplan.trace import Episode
from hiplan.training.config import Stage, TrainConfig
from hiplan.training.sources import PlanSource


@dataclass(frozen=True)
class Rollout:
    """An episode of training. ``group``: episodes that share task and given plan; ``planned``: it had a planner."""

    episode: Episode
    group: int
    planned: bool


class Collector:
    """Plays groups of one iteration of ``stage``. ``seed`` fixes tasks, plans and sampling.

    ``groups`` of ``size`` episodes are wanted, ``resample`` refills allowed. ``draw``: that many tasks.
    ``informative``: the groups among rollouts from which a role that learns has something to learn. ``judge``: scores
    first plans, where rewards need that.
    """

    def __init__(
        self, sampler: Sampler, stage: Stage, source: PlanSource, draw: Callable[[random.Random, int], Sequence[Task]],
        seed: Sequence[object], config: TrainConfig, informative: Callable[[Sequence[Rollout]], set[int]],
        judge: Judge | None = None,
    ) -> None:  # fmt: skip
        self.sampler, self.stage, self.informative, self.judge = sampler, stage, informative, judge
        self.groups, self.size, self.resample = config.groups, config.group_size, config.resample
        self._source, self._draw, self._seed = source, draw, tuple(seed)
        self._attempt = self._next = 0

    def play(self, groups: int, sampler: Sampler | None = None) -> list[Rollout]:
        """Play so many more groups, fewer where the source has no plan for a task."""
        seed = derive_seed(*self._seed, self._attempt)
        rng = random.Random(seed)
        tasks = self._draw(rng, groups)
        jobs: list[Job] = []
        about: list[tuple[int, bool]] = []
        for g, (task, planner) in enumerate(zip(tasks, self._source(tasks, seed), strict=True)):
            without = rng.random() < self.stage.no_plan and "executor" in self.stage.trains
            chosen = NoPlanner() if without else planner
            if chosen is None:
                continue
            jobs += [Job(task, chosen, self.sampler.executor, derive_seed(seed, g, k)) for k in range(self.size)]
            about += [(self._next + g, not isinstance(chosen, NoPlanner))] * self.size
        self._attempt, self._next = self._attempt + 1, self._next + groups
        episodes = (sampler or self.sampler).run(jobs)
        if self.judge:
            score_first_plans(episodes, self.judge)
        return [Rollout(episode, *known) for episode, known in zip(episodes, about, strict=True)]


Collect = Callable[[Collector], list[Rollout]]


def once(collector: Collector) -> list[Rollout]:
    """As many groups as are wanted, whatever comes of them."""
    return collector.play(collector.groups)


def refill(collector: Collector) -> list[Rollout]:
    """Groups whose episodes all have the same rewards teach nothing: play others, up to ``resample`` times (DAPO)."""
    found = once(collector)
    for _ in range(collector.resample):
        missing = collector.groups - len(collector.informative(found))
        if missing <= 0:
            break
        found += collector.play(missing)
    return found
