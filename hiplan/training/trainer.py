"""Progressive training of planner and executor: PilotRL's three stages (arXiv 2508.00344, section 4).

    for each stage:    freeze the other role, select the plan source and the rewards
      for each iteration:    collect -> reward -> credit -> update

The default is role-wise GRPO: each role has its own rewards, groups and statistics, and a frozen role carries no loss.
Deviations from the public scripts: the weights of the stage rewards, which are not public; clip-higher by default; and
statistics per role instead of per episode.

All seeds are derived from (seed, stage, iteration, group, episode). So a checkpoint needs no generator states, and a
resumed run is bit-identical at the same number of threads.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from hiplan.coordination import Judge, Limits, Matcher, ReplanPolicy, rules_judge
from hiplan.coordination.matching import MATCHERS
from hiplan.coordination.replan import REPLAN_POLICIES
from hiplan.envs import TaskSuite, suite
from hiplan.errors import ConfigError
from hiplan.loading import sampler_facts
from hiplan.models.local import LocalModel
from hiplan.models.settings import WeightsConfig
from hiplan.models.stages import save_stage
from hiplan.sampler import Sampler
from hiplan.task import Task
from hiplan.trace import Episode
from hiplan.training import checkpoint, processes, sources, state
from hiplan.training.algorithm import Algorithm, Reward, advantages_of, build
from hiplan.training.collect import Collector, Rollout
from hiplan.training.config import Stage, TrainConfig
from hiplan.training.credit import Decision, informative
from hiplan.training.decisions import decisions_of
from hiplan.training.folder import lock_folder
from hiplan.training.iteration_metrics import episode_rewards, plan_kl_episodes, rollout_metrics
from hiplan.training.learner import Learner
from hiplan.training.metrics import MetricsLog
from hiplan.training.plan_kl import plan_kl
from hiplan.training.rewards import stage_reward
from hiplan.training.state import Cursor
from hiplan.training.updates import RoleUpdates

Progress = Callable[[dict[str, Any]], None]


class ProgressiveTrainer:
    """Trains the planner and the executor of a model stage by stage.

    ``model``: a loaded model, or the name of a shipped model or a folder, for which ``weights`` selects what the roles
    share. ``env``: an embedded suite by name, a ``TaskSuite``, or ``file.py:name``. ``stages``, ``algorithm``,
    ``replan`` and ``matcher`` override the config. ``rewards``: a function of episode and role that replaces the
    rewards of all stages. ``judge`` scores first plans if rewards or plan sources need it; default: the rules.

    ``output_dir`` receives metrics, checkpoints, and each finished stage in ``stages/``; with ``resume``, training
    continues there. ``checkpoint_every`` is in iterations. ``on_iteration`` is called with the metrics of each
    iteration, ``on_stage_end`` after each stage. ``about``: facts to store with each stage.

    Raises ``ConfigError`` if settings cannot be used, and ``CheckpointError`` if a checkpoint cannot be resumed.
    """

    def __init__(
        self, model: LocalModel | str | Path = "tiny-v1", env: TaskSuite | str = "mixed", *,
        stages: Sequence[Stage] | None = None, rewards: Reward | None = None, output_dir: str | Path | None = None,
        resume: bool = False, seed: int = 0, config: TrainConfig | None = None, weights: WeightsConfig | None = None,
        algorithm: Algorithm | None = None, judge: Judge | None = None, replan: ReplanPolicy | None = None,
        matcher: Matcher | None = None, on_iteration: Progress | None = None,
        on_stage_end: Callable[[Stage], None] | None = None, checkpoint_every: int = 5,
        about: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        config = config or TrainConfig()
        self.config = config if stages is None else config.model_copy(update={"stages": tuple(stages)})
        self.algorithm = algorithm or build(self.config.algorithm)
        if rewards is not None:
            self.algorithm = replace(self.algorithm, reward=rewards)
        self.suite, self.seed, self.folder = suite(env), seed, Path(output_dir) if output_dir else None
        self.model = model if isinstance(model, LocalModel) else LocalModel.load(str(model), weights, seed)
        self.accelerator: Accelerator = processes.start(self.model, self.config)
        self.on_iteration, self.on_stage_end, self.checkpoint_every = on_iteration, on_stage_end, checkpoint_every
        self.about = {"env": self.suite.name} | (about or {})
        self.sampler = Sampler(
            self.model, self.suite.make_env, self.config.decoding(), replan or REPLAN_POLICIES[self.config.replan],
            Limits(turns=self.config.turns), matcher or MATCHERS[self.config.matcher],
            None if self.model.weights.sharded else partial(processes.play_together, accelerator=self.accelerator),
        )  # fmt: skip
        self.judge = processes.judge_on_main_process(judge or rules_judge(self.suite.make_env), self.accelerator)
        self.learner = Learner(self.model, self.config, self.accelerator, seed, self.algorithm.loss)
        self._lock = lock_folder(self.folder) if self.folder and self.accelerator.is_main_process else None
        found = checkpoint.load_latest(self.folder / "checkpoints") if self.folder else None
        if found and not resume:
            raise ConfigError(
                f"{str(self.folder)!r} already holds a run; continue it with resume=True, or choose another folder"
            )
        self.cursor, length = state.restore(*found, self.learner, self.config, seed) if found else (Cursor(), 0)
        self.metrics = MetricsLog(self.folder if self.accelerator.is_main_process else None, length)
        self.resumed = found is not None
        self._plan_file = sources.load_plan_file(self.config, self.cursor.stage)
        self.demonstrations: list[Episode] = []
        if self.config.warm_start and not self.cursor.warm:
            processes.refuse_several(self.accelerator)
            self.demonstrations = sources.demonstrations(self.suite, self.sampler, self.config.warm_start, seed)

    # -- the algorithm -----------------------------------------------------------------------

    def train(self) -> None:
        """Run the optional warm start and all remaining stages."""
        if self.demonstrations:
            self._warm_start()
        while self.cursor.stage < len(self.config.stages):
            stage = self.config.stages[self.cursor.stage]
            if self.cursor.iteration == 0:
                self.learner.begin(stage)
            while not stage.ended(self.cursor.iteration, self.cursor.env_steps):
                self._iterate(stage)
                self.cursor.iteration += 1
                self.cursor.total += 1
                if self.cursor.iteration % self.checkpoint_every == 0:
                    self.save()
            self.cursor.stage, self.cursor.iteration = self.cursor.stage + 1, 0
            self.learner.end()
            self._save_stage(stage)
            if self.on_stage_end:
                self.on_stage_end(stage)
            self.save()

    def _iterate(self, stage: Stage) -> None:
        began = time.perf_counter()
        rollouts = self.algorithm.collect(self._collector(stage))
        self.cursor.env_steps += sum(len(rollout.episode.turns) for rollout in rollouts)
        collected = time.perf_counter()
        row: dict[str, Any] = {"kind": "train", "stage": stage.name, "iteration": self.cursor.total}
        row |= rollout_metrics(rollouts) | {"env_steps": self.cursor.env_steps} | self._plan_kl(rollouts)
        decisions = self._decisions(stage, rollouts)
        advantages = advantages_of(self.algorithm, decisions)
        updates = RoleUpdates(
            self.learner, stage, rollouts, decisions, advantages, self.cursor.total, self.algorithm.drop_zero
        )
        self.algorithm.schedule(updates)
        row |= updates.metrics() | self.learner.drift([rollout.episode for rollout in rollouts])
        self.metrics.add(row, rollout_s=collected - began, update_s=time.perf_counter() - collected)
        if self.on_iteration:
            self.on_iteration(row)

    # -- collect and reward ------------------------------------------------------------------

    def _collector(self, stage: Stage) -> Collector:
        def informative_groups(rollouts: Sequence[Rollout]) -> set[int]:
            decisions = self._decisions(stage, rollouts)
            return {group for role in stage.trains for group in informative(*episode_rewards(decisions, role))}

        def draw(rng: random.Random, count: int) -> Sequence[Task]:
            if stage.plans == "file":
                return rng.choices(self._plan_file[1], k=count)
            return [self.suite.draw(rng) for _ in range(count)]

        judged = self.algorithm.reward is None and any(stage.rewards.judged(role) for role in stage.trains)
        source = sources.stage_source(stage.plans, self.sampler, self.judge, self._plan_file[0])
        seed = (self.seed, self.cursor.stage, self.cursor.iteration)
        judge = self.judge if judged else None
        return Collector(self.sampler, stage, source, draw, seed, self.config, informative_groups, judge)

    def _decisions(self, stage: Stage, rollouts: Sequence[Rollout]) -> list[Decision]:
        return decisions_of(rollouts, stage.trains, self.algorithm.reward or stage_reward(stage.rewards))

    def _plan_kl(self, rollouts: Sequence[Rollout]) -> dict[str, Any]:
        some = plan_kl_episodes(rollouts, self.config.plan_kl)
        return {"plan_kl": plan_kl(self.model, some, self.config.temperature)} if some else {}

    def _warm_start(self) -> None:
        """Supervised learning of both roles from oracle demonstrations."""
        from hiplan.training.warmstart import warm_start  # trl takes seconds to import

        began = time.perf_counter()
        losses = warm_start(self.model, self.demonstrations, seed=self.seed)
        row = {"kind": "warm start", "episodes": len(self.demonstrations), **losses}
        self.metrics.add(row, warm_s=time.perf_counter() - began)
        self.cursor.warm, self.demonstrations = True, []
        self.save()

    def _save_stage(self, stage: Stage) -> None:
        """Write the stage folder, with the settings that ``load_agent`` needs."""
        if self.folder is not None:
            about = {"stage": stage.name, "seed": self.seed} | sampler_facts(self.sampler) | self.about
            save_stage(self.model, self.folder / "stages" / stage.name, about, self.accelerator.is_main_process)

    def save(self) -> None:
        """Write a checkpoint of the current state."""
        if self.folder is not None:
            folder, rows = self.folder / "checkpoints", self.metrics.length
            state.save(folder, self.cursor, self.learner, rows, self.seed, self.accelerator)
