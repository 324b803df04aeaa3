"""Progressive training of planner and executor: PilotRL's three stages (arXiv 2508.00344, section 4).

    for each stage:    freeze the other role, choose where plans come from and what is rewarded
      for each iteration:    sample tasks -> roll out groups -> rewards -> advantages -> update

Role-wise GRPO: each role has its own rewards, groups and statistics, and a role that does not learn in a stage
carries no loss. Deviations from the public scripts: the stage rewards' weights (not public), clip-higher
by default, and statistics per role instead of per episode.

All randomness is derived from (seed, stage, iteration, group, episode), so a checkpoint needs no generator
states and a resumed run is bit-identical at the same number of threads.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator, DistributedType
from torch import Tensor
from torch.accelerator import is_available as has_accelerator
from torch.distributed import is_initialized

from hiplan.coordination import Limits, PlanScore, Submission, Unjudged, rules_judge
from hiplan.coordination.adherence import scores
from hiplan.coordination.policy import POLICIES, ReplanPolicy
from hiplan.env import EnvFactory
from hiplan.errors import CheckpointError, ConfigError
from hiplan.evaluation.panels import TaskMix
from hiplan.executors import Executor
from hiplan.model import derive_seed
from hiplan.models.local import LocalModel
from hiplan.planners import NoPlanner, Planner, PlannerProtocol
from hiplan.rollout import Job, rollout
from hiplan.task import Task
from hiplan.trace import Episode, Role, StopReason
from hiplan.training import checkpoint, sources
from hiplan.training.advantages import ESTIMATORS, informative
from hiplan.training.batch import Row, rows_of
from hiplan.training.config import Stage, TrainConfig
from hiplan.training.folder import lock_folder
from hiplan.training.learner import Learner
from hiplan.training.metrics import MetricsLog
from hiplan.training.plan_kl import plan_kl
from hiplan.training.processes import play_together
from hiplan.training.rewards import role_reward

Progress = Callable[[dict[str, Any]], None]


@dataclass
class Cursor:
    """Where the run stands: the next iteration of a stage, environment steps so far, and whether warmed up."""

    stage: int = 0
    iteration: int = 0
    total: int = 0
    env_steps: int = 0
    warm: bool = False


@dataclass(frozen=True)
class Rollouts:
    """The episodes of one iteration; ``groups`` and ``planned`` have one entry per episode."""

    episodes: list[Episode]
    groups: list[int]
    planned: list[bool]


@dataclass
class ProgressiveTrainer:
    """Trains ``model``'s roles by ``config`` on tasks drawn by ``task_mix``.

    With ``folder`` set, it writes metrics and checkpoints there and goes on from the latest one.
    ``on_iteration`` is called with each metrics row, ``on_stage_end`` after each stage. ``policy``: when plans are
    revised, where ``config.revise`` has no name for it.
    """

    model: LocalModel
    task_mix: TaskMix
    make_env: EnvFactory
    config: TrainConfig = field(default_factory=TrainConfig)
    seed: int = 0
    folder: Path | None = None
    on_iteration: Progress | None = None
    on_stage_end: Callable[[Stage], None] | None = None
    checkpoint_every: int = 5
    policy: ReplanPolicy | None = None

    def __post_init__(self) -> None:
        cpu = "LOCAL_RANK" in os.environ and not has_accelerator()  # else each process takes itself for the only one
        self.accelerator = Accelerator(cpu=cpu)
        self.model.to(self.accelerator.device)
        if self.config.shard or self.accelerator.distributed_type is DistributedType.FSDP:
            self._shard()
        if not self.model.weights.mergeable and any(stage.kl for stage in self.config.stages):
            raise ConfigError(
                "kl needs a whole copy of the weights at the stage's start; with split or 4-bit ones use 0"
            )
        self.cursor = Cursor()
        self.limits = Limits(turns=self.config.turns)
        self.revise = self.policy or POLICIES[self.config.revise]
        self.decoding = self.config.decoding()
        self.planner, self.executor = Planner(self.model.prompts), Executor(self.model.prompts)
        self._scores: dict[Any, PlanScore | None] = {}
        self.learner = Learner(self.model, self.config, self.accelerator, self.seed)
        self._lock = lock_folder(self.folder) if self.folder and self.accelerator.is_main_process else None
        found = checkpoint.load_latest(self.folder / "checkpoints") if self.folder else None
        length = self._resume(*found) if found else 0
        self.metrics = MetricsLog(self.folder if self.accelerator.is_main_process else None, length)
        self.resumed = found is not None
        if filed := [s.name for s in self.config.stages[self.cursor.stage :] if s.plans == "file"]:
            if not self.config.plan_file:
                raise ConfigError(f"the stage {filed[0]!r} takes its plans from a plan file; give one as plan_file")
            self._filed = sources.from_file(Path(self.config.plan_file))

    def _shard(self) -> None:
        if not is_initialized():
            raise ConfigError("shard splits weights over several processes; start with accelerate launch, or use false")
        if self.model.weights.config.quantize != "none":
            raise ConfigError("a base in four bits is not split over processes; use quantize: none, or shard: false")
        self.model.weights.shard(self.accelerator.device)

    # -- the algorithm -----------------------------------------------------------------------

    def train(self) -> None:
        """Run all stages from where the run stands, after an optional warm start."""
        if self.config.warm_start and not self.cursor.warm:
            if self.accelerator.num_processes > 1:
                raise ConfigError(
                    "warm_start runs in one process; start the run there, stop it after the warm start, and go on"
                )
            self._warm_start()
        while self.cursor.stage < len(self.config.stages):
            stage = self.config.stages[self.cursor.stage]
            if self.cursor.iteration == 0:
                self.learner.begin(stage)
            while self.cursor.iteration < stage.iterations and not self._spent(stage):
                self._iterate(stage)
                self.cursor.iteration += 1
                self.cursor.total += 1
                if self.cursor.iteration % self.checkpoint_every == 0:
                    self.save()
            self.cursor.stage, self.cursor.iteration = self.cursor.stage + 1, 0
            self.learner.end()
            if self.on_stage_end:
                self.on_stage_end(stage)
            self.save()

    def _warm_start(self) -> None:
        """Supervised learning from the oracle's play, both roles."""
        from hiplan.training.warmstart import oracle_demonstrations, warm_start  # trl takes seconds to import

        began = time.perf_counter()
        rng = random.Random(derive_seed(self.seed, "warm start"))
        tasks = [self.task_mix(rng) for _ in range(self.config.warm_start)]
        episodes = oracle_demonstrations(
            tasks, self.model.prompts, self.make_env, policy=self.revise, limits=self.limits
        )
        losses = warm_start(self.model, episodes, seed=self.seed)
        self.metrics.add(
            {"kind": "warm start", "episodes": len(episodes), **losses}, warm_s=time.perf_counter() - began
        )
        self.cursor.warm = True
        self.save()

    def _iterate(self, stage: Stage) -> None:
        began = time.perf_counter()
        rollouts = self._collect(stage)
        collected = time.perf_counter()
        row = self._describe(stage, rollouts) | self._read(rollouts)
        self.learner.next_iteration()
        self._scores.clear()
        lessons = {role: self._lesson(stage, role, rollouts) for role in stage.trains}
        for role, (figures, rows) in lessons.items():
            row |= figures
            if rows:
                row |= self.learner.update(role, rows, self.learner.held(rollouts.episodes), self.cursor.total)
        row |= self.learner.drift(rollouts.episodes)
        self.metrics.add(row, rollout_s=collected - began, update_s=time.perf_counter() - collected)
        if self.on_iteration:
            self.on_iteration(row)

    # -- rollouts ----------------------------------------------------------------------------

    def _collect(self, stage: Stage) -> Rollouts:
        """Groups of episodes that share the task and, where plans are given, the plan."""
        found = self._roll(stage, 0, self.config.groups, 0)
        for attempt in range(1, 1 + self.config.resample):
            missing = self.config.groups - len(self._informative(stage, found))
            if missing <= 0:
                break
            more = self._roll(stage, attempt, missing, max(found.groups, default=-1) + 1)
            found = Rollouts(found.episodes + more.episodes, found.groups + more.groups, found.planned + more.planned)
        self.cursor.env_steps += sum(len(e.turns) for e in found.episodes)
        return found

    def _roll(self, stage: Stage, attempt: int, count: int, first_group: int) -> Rollouts:
        seed = derive_seed(self.seed, self.cursor.stage, self.cursor.iteration, attempt)
        rng = random.Random(seed)
        tasks = self._tasks(stage, rng, count)
        planners: list[PlannerProtocol | None] = self._source(stage)(tasks, seed)
        jobs, groups, planned = [], [], []
        for g, (task, planner) in enumerate(zip(tasks, planners, strict=True)):
            bare = rng.random() < stage.no_plan and "executor" in stage.trains
            chosen = NoPlanner() if bare else planner
            if chosen is None:  # the source has no plan for this task
                continue
            for k in range(self.config.group_size):
                jobs.append(Job(task, chosen, self.executor, derive_seed(seed, g, k)))
                groups.append(first_group + g)
                planned.append(not isinstance(chosen, NoPlanner))

        def play(mine: Sequence[Job]) -> list[Episode]:
            return rollout(mine, self.model, self.make_env, self.decoding, self.revise, self.limits)

        return Rollouts(self.play(jobs, play), groups, planned)

    def play(self, jobs: Sequence[Job], play: Callable[[Sequence[Job]], list[Episode]]) -> list[Episode]:
        """All jobs' episodes: a share of them played by each process, or with split weights all by all, in step."""
        return play(jobs) if self.model.weights.sharded else play_together(jobs, play, self.accelerator)

    def _tasks(self, stage: Stage, rng: random.Random, count: int) -> list[Task]:
        if stage.plans == "file":
            return rng.choices(self._filed[1], k=count)
        return [self.task_mix(rng) for _ in range(count)]

    def _source(self, stage: Stage) -> sources.PlanSource:
        own = (self.model, self.planner, self.executor, self.make_env, self.decoding)
        match stage.plans:
            case "self":
                return sources.always(self.planner)
            case "oracle":
                return sources.oracle()
            case "none":
                return sources.none()
            case "hindsight":
                return sources.hindsight(*own, self.limits, self.revise)
            case "filtered":
                return sources.filtered(*own)
            case "file":
                return self._filed[0]

    # -- learning ----------------------------------------------------------------------------

    def _rewards(self, stage: Stage, role: Role, rollouts: Rollouts) -> tuple[list[int], list[float]]:
        """Indices of the episodes in which the role took part, and its reward in each."""
        mine = [
            i for i, e in enumerate(rollouts.episodes) if role in e.conversations and e.stop is not StopReason.FAULT
        ]
        rewards = []
        for i in mine:
            episode = rollouts.episodes[i]
            score = self._score(episode) if stage.rewards.judged(role) else None
            rewards.append(role_reward(episode, role, stage.rewards, score))
        return mine, rewards

    def _score(self, episode: Episode) -> PlanScore | None:
        """The rule-based judge's of the first plan, once per task and plan of an iteration."""
        plan = episode.plans[0].plan if episode.plans else None
        key = episode.task.id, plan and plan.steps
        if key not in self._scores:
            (score,) = rules_judge(self.make_env)([Submission(episode.task, episode.observation, plan)])
            self._scores[key] = None if isinstance(score, Unjudged) else score
        return self._scores[key]

    def _informative(self, stage: Stage, rollouts: Rollouts) -> set[Any]:
        useful: set[Any] = set()
        for role in stage.trains:
            mine, rewards = self._rewards(stage, role, rollouts)
            useful |= informative(rewards, [rollouts.groups[i] for i in mine])
        return useful

    def _lesson(self, stage: Stage, role: Role, rollouts: Rollouts) -> tuple[dict[str, Any], list[Row]]:
        """Figures, and what one role learns from its own rewards; episodes without advantage are left out."""
        mine, rewards = self._rewards(stage, role, rollouts)
        groups = [rollouts.groups[i] for i in mine]
        if not mine:
            return {}, []
        advantages = ESTIMATORS[self.config.estimator](rewards, groups)
        rows = [
            row
            for i, a in zip(mine, advantages, strict=True)
            if abs(a) > 1e-9
            for row in rows_of([rollouts.episodes[i]], role, float(a))
        ]
        flat = 1 - len(informative(rewards, groups)) / len(set(groups))
        figures: dict[str, Any] = {f"reward_{role}": float(np.mean(rewards)), f"zero_variance_{role}": flat}
        return figures, self.learner.rescored(role, rows)

    def _read(self, rollouts: Rollouts) -> dict[str, Any]:
        """How much the executor's words depend on the plan it reads, on some of these episodes (``plan_kl``)."""
        planned = [e for e in rollouts.episodes if "executor" in e.conversations and e.plans and e.plans[0].plan]
        some = list({e.task.id: e for e in reversed(planned)}.values())[::-1][: self.config.plan_kl]
        return {"plan_kl": plan_kl(self.model, some, self.config.temperature)} if some else {}

    # -- the record --------------------------------------------------------------------------

    def _describe(self, stage: Stage, rollouts: Rollouts) -> dict[str, Any]:
        planned = [e for e, p in zip(rollouts.episodes, rollouts.planned, strict=True) if p]
        shown = planned or rollouts.episodes
        kept_to = [scores(e) for e in planned]
        shares = [s.adherence for s in kept_to if s.adherence is not None]
        covered = [s.coverage for s in kept_to if s.coverage is not None]
        return {
            "kind": "train",
            "stage": stage.name,
            "iteration": self.cursor.total,
            "success": float(np.mean([e.success for e in shown])) if shown else 0.0,
            "adherence": float(np.mean(shares)) if shares else None,
            "coverage": float(np.mean(covered)) if covered else None,
            "turns": float(np.mean([len(e.turns) for e in shown])) if shown else 0.0,
            "revisions": float(np.mean([len(e.plans) - 1 for e in shown])) if shown else 0.0,
            "episodes": len(rollouts.episodes),
            "faults": sum(e.stop is StopReason.FAULT for e in rollouts.episodes),
            "env_steps": self.cursor.env_steps,
        }

    def _spent(self, stage: Stage) -> bool:
        return stage.env_steps is not None and self.cursor.env_steps >= stage.env_steps

    def save(self) -> None:
        """Write a checkpoint of the run as it stands; the first process does, the others wait."""
        if self.folder is None:
            return
        tensors = self.learner.state()
        if self.accelerator.is_main_process:
            folder, state = self.folder / "checkpoints", {"cursor": vars(self.cursor), "metrics": self.metrics.length}
            name = f"{self.cursor.total:06d}-{self.cursor.stage}"
            checkpoint.save_state(folder / name, tensors, state | {"seed": self.seed})
            checkpoint.prune(folder, keep=2)
        self.accelerator.wait_for_everyone()

    def _resume(self, folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> int:
        try:
            seed, length, self.cursor = state["seed"], int(state["metrics"]), Cursor(**state["cursor"])
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"{str(folder)!r} does not hold the state of a run; delete it") from None
        if seed != self.seed:
            raise CheckpointError(f"{str(folder)!r} was made with seed {seed}, not {self.seed}")
        self.learner.load(tensors, self.config.stages[self.cursor.stage] if self.cursor.iteration > 0 else None)
        return length
