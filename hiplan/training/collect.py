"""Collect the episodes of an iteration in groups: sample tasks, get the plans, play.

A *collect function* decides which groups are played. ``once`` plays the configured number; ``refill`` also replaces
groups whose episodes all have the same rewards. Write your own for growing turn limits, branching or paired rollouts.
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
    """A training episode. ``group``: the episodes with the same task and given plan. ``planned``: it had a planner."""

    episode: Episode
    group: int
    planned: bool


class Collector:
    """Plays the groups of one iteration of ``stage``.

    ``seed`` determines tasks, plans and sampling. ``draw`` samples a number of tasks. ``informative`` returns the
    groups in which the rewards of a trained role differ. ``judge`` scores first plans, if rewards need the score. From
    the config: ``groups`` and their ``size``, and ``resample``, the most refills.
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
        """Play ``groups`` more groups, without those for whose task the plan source has no plan."""
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
    """Play the configured number of groups."""
    return collector.play(collector.groups)


def refill(collector: Collector) -> list[Rollout]:
    """Like ``once``, then play replacements for groups without reward variance, up to ``resample`` times.

    This is dynamic sampling (DAPO, arXiv 2503.14476), except that groups without variance are kept.
    """
    found = once(collector)
    for _ in range(collector.resample):
        missing = collector.groups - len(collector.informative(found))
        if missing <= 0:
            break
        found += collector.play(missing)
    return found
