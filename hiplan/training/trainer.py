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

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from torch import Tensor, nn
from torch.distributed import is_initialized

from hiplan.coordination import Limits, judge_plan
from hiplan.coordination.adherence import scores
from hiplan.env import EnvFactory, PlanAware
from hiplan.errors import CheckpointError, ConfigError
from hiplan.evaluation.panels import TaskMix
from hiplan.executors import Executor
from hiplan.model import derive_seed
from hiplan.models.local import LocalModel
from hiplan.models.shards import split_like, whole
from hiplan.planners import NoPlanner, Planner, PlannerProtocol
from hiplan.rollout import Job, rollout
from hiplan.task import Task
from hiplan.trace import ROLES, Episode, Role, StopReason
from hiplan.training import checkpoint, sources
from hiplan.training.advantages import ESTIMATORS, informative
from hiplan.training.batch import Batch, Row, batches, rows_of, token_logprobs
from hiplan.training.config import Stage, TrainConfig
from hiplan.training.losses import clipped_loss, k3
from hiplan.training.metrics import MetricsLog
from hiplan.training.plan_kl import plan_kl
from hiplan.training.processes import add_up, largest, my_batches, play_together, sum_gradients
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
    ``on_iteration`` is called with each metrics row, ``on_stage_end`` after each stage.
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

    def __post_init__(self) -> None:
        self.accelerator = Accelerator()
        self.model.to(self.accelerator.device)
        if self.config.shard or self.accelerator.distributed_type is DistributedType.FSDP:
            self._shard()
        if not self.model.weights.mergeable and any(stage.kl for stage in self.config.stages):
            raise ConfigError(
                "kl needs a whole copy of the weights at the stage's start; with split or 4-bit ones use 0"
            )
        self.cursor = Cursor()
        self.limits = Limits(turns=self.config.turns)
        self.decoding = self.config.decoding()
        self.planner, self.executor = Planner(self.model.prompts), Executor(self.model.prompts)
        self.optimizers: dict[str, torch.optim.AdamW] = {}  # by unit of weights
        self._start: dict[str, Tensor] = {}
        self._reference: dict[Role, nn.Module] = {}
        self._dragged: tuple[Role, ...] = ()
        self._moved: set[str] = set()  # units that have learned in this iteration
        found = checkpoint.latest(self.folder / "checkpoints") if self.folder else None
        length = self._resume(found) if found else 0
        self.metrics = MetricsLog(self.folder if self.accelerator.is_main_process else None, length)
        self.resumed = found is not None

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
                self._begin(stage)
            while self.cursor.iteration < stage.iterations and not self._spent(stage):
                self._iterate(stage)
                self.cursor.iteration += 1
                self.cursor.total += 1
                if self.cursor.iteration % self.checkpoint_every == 0:
                    self.save()
            self.cursor.stage, self.cursor.iteration = self.cursor.stage + 1, 0
            self.optimizers = {}
            if self.on_stage_end:
                self.on_stage_end(stage)
            self.save()

    def _warm_start(self) -> None:
        """Supervised learning from the oracle's play, both roles."""
        from hiplan.training.warmstart import oracle_demonstrations, warm_start  # trl takes seconds to import

        began = time.perf_counter()
        rng = random.Random(derive_seed(self.seed, "warm start"))
        tasks = [self.task_mix(rng) for _ in range(self.config.warm_start)]
        episodes = oracle_demonstrations(tasks, self.model.prompts, self.make_env, limits=self.limits)
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
        self._moved.clear()
        lessons = {role: self._lesson(stage, role, rollouts) for role in stage.trains}
        for role, (figures, rows) in lessons.items():
            row |= figures
            if rows:
                row |= self._update(stage, role, rows, self._held(stage, rollouts))
        row |= self._drift(stage, rollouts)
        self.metrics.add(row, rollout_s=collected - began, update_s=time.perf_counter() - collected)
        if self.on_iteration:
            self.on_iteration(row)

    def _begin(self, stage: Stage) -> None:
        """Freeze the roles that do not learn; optimizer moments start anew in each stage."""
        self._start = {key: value.cpu() for key, value in self.model.weights.state().items()}
        self._set_up(stage)

    def _set_up(self, stage: Stage) -> None:
        weights = self.model.weights
        weights.train_only(stage.trains)
        self.optimizers = {
            unit: torch.optim.AdamW(weights.unit(unit).values(), lr=stage.learning_rate, weight_decay=0.0)
            for unit in weights.config.trained(stage.trains)
        }
        self._dragged = tuple(r for r in ROLES if r not in stage.trains and self._learning(r))
        self._reference = {}
        watched = self._dragged if stage.kl or weights.mergeable else ()
        if stage.kl or watched:
            now = weights.state()
            weights.load_state(self._start)
            anchored = stage.trains if stage.kl else ()
            asked = {weights.units[role]: role for role in (*anchored, *watched)}  # joint roles are one
            copies = {units: weights.snapshot(role) for units, role in asked.items()}
            self._reference = {role: copies[weights.units[role]] for role in (*anchored, *watched)}
            weights.load_state(now)

    def _learning(self, role: Role) -> list[str]:
        """The role's units that learn in this stage, be it for another role that shares them."""
        return [unit for unit in self.model.weights.units[role] if unit in self.optimizers]

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
            return rollout(mine, self.model, self.make_env, self.decoding, limits=self.limits)

        return Rollouts(self.play(jobs, play), groups, planned)

    def play(self, jobs: Sequence[Job], play: Callable[[Sequence[Job]], list[Episode]]) -> list[Episode]:
        """All jobs' episodes: a share of them played by each process, or with split weights all by all, in step."""
        return play(jobs) if self.model.weights.sharded else play_together(jobs, play, self.accelerator)

    def _tasks(self, stage: Stage, rng: random.Random, count: int) -> list[Task]:
        if stage.plans == "file":
            return rng.choices(self._plan_file()[1], k=count)
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
                return sources.hindsight(*own, limits=self.limits)
            case "filtered":
                return sources.filtered(*own)
            case "file":
                return self._plan_file()[0]

    def _plan_file(self) -> tuple[sources.PlanSource, list[Task]]:
        if not hasattr(self, "_plans"):
            self._plans = sources.from_file(Path(self.config.plan_file or ""))
        return self._plans

    # -- learning ----------------------------------------------------------------------------

    def _rewards(self, stage: Stage, role: Role, rollouts: Rollouts) -> tuple[list[int], list[float]]:
        """Indices of the episodes in which the role took part, and its reward in each."""
        mine = [
            i for i, e in enumerate(rollouts.episodes) if role in e.conversations and e.stop is not StopReason.FAULT
        ]
        rewards = []
        for i in mine:
            episode = rollouts.episodes[i]
            score = None
            if stage.rewards.judged(role) and episode.plans:
                env = self.make_env(episode.task)
                env.reset(episode.task)
                score = judge_plan(episode.plans[0].plan, env) if isinstance(env, PlanAware) else None
                env.close()
            rewards.append(role_reward(episode, role, stage.rewards, score))
        return mine, rewards

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
        return figures, self._rescored(role, rows)

    def _held(self, stage: Stage, rollouts: Rollouts) -> list[Row]:
        """Rows of frozen roles that share the trained weights, for the anchor; they carry no advantage."""
        if not stage.kl:
            return []
        held = [row for role in self._dragged for row in rows_of(rollouts.episodes, role, 0.0)]
        return held[: self.config.group_size]

    def _read(self, rollouts: Rollouts) -> dict[str, Any]:
        """How much the executor's words depend on the plan it reads, on some of these episodes (``plan_kl``)."""
        firsts = dict(zip(reversed(rollouts.groups), reversed(rollouts.episodes), strict=True))
        some = [e for e in reversed(firsts.values()) if "executor" in e.conversations][: self.config.plan_kl]
        return {"plan_kl": plan_kl(self.model, some, self.config.temperature)} if some else {}

    def _drift(self, stage: Stage, rollouts: Rollouts) -> dict[str, Any]:
        """How far joint weights have moved a frozen role since the stage began: k3 on its latest tokens."""
        out: dict[str, Any] = {}
        for role in [role for role in self._dragged if role in self._reference]:
            held = rows_of(rollouts.episodes, role, 0.0)
            rows = held[:: max(1, len(held) // 16)]
            total, count = 0.0, 0
            with torch.no_grad(), self.model.weights.acting_as(role) as model:
                for batch in batches(rows, self.config.batch_tokens, self.accelerator.device):
                    logp = token_logprobs(model, batch, self.config.temperature)
                    start = token_logprobs(self._reference[role], batch, self.config.temperature)
                    total += k3(logp, start, batch.mask, 1.0).item()
                    count += int(batch.mask.sum())
            out[f"drift_{role}"] = total / count if count else None
        return out

    def _update(self, stage: Stage, role: Role, rows: Sequence[Row], held: Sequence[Row]) -> dict[str, Any]:
        """``config.updates`` optimizer steps over the rows, each on its share; ``held`` rows feel the anchor alone."""
        order = list(rows)
        random.Random(derive_seed(self.seed, "order", self.cursor.total, role)).shuffle(order)
        config, units = self.config, self._learning(role)
        parts = [part for k in range(config.updates) if (part := order[k :: config.updates])]
        sums, gap, norm = dict.fromkeys(("loss", "kl", "entropy"), 0.0), 0.0, 0.0
        parameters = [p for unit in units for p in self.model.weights.unit(unit).values()]
        as_sampled = self._moved.isdisjoint(units)
        with self.model.weights.acting_as(role) as model, self._saving_memory(model):
            for part in parts:
                count = max(1, sum(sum(row.trained[1:]) for row in part))
                for unit in units:
                    self.optimizers[unit].zero_grad()
                for batch in self._share(part):
                    logp = token_logprobs(model, batch, config.temperature)
                    loss = clipped_loss(
                        logp,
                        batch.logp_old,
                        batch.advantage,
                        batch.mask,
                        clip_low=config.clip_low,
                        clip_high=config.clip_high,
                        dual_clip=config.dual_clip,
                        denominator=count,
                    )
                    if stage.kl:
                        pull = self._pull(role, logp, batch, count)
                        loss = loss + stage.kl * pull
                        sums["kl"] += pull.item()
                    if loss.requires_grad:  # if not, ``guarded`` says so
                        self.accelerator.backward(loss)
                    sums["loss"] += loss.item()
                    if part is parts[0]:
                        gap = max(gap, ((logp.detach() - batch.logp_old).abs() * batch.mask).max().item())
                    sums["entropy"] -= batch.logp_old[batch.mask].sum().item() / count
                for other in self._dragged if held else ():
                    with self.model.weights.acting_as(other) as dragged:
                        for batch in self._share(held):
                            logp = token_logprobs(dragged, batch, config.temperature)
                            self.accelerator.backward(stage.kl * self._pull(other, logp, batch, count))
                if not self.model.weights.sharded:  # there the backward pass has summed them
                    sum_gradients(parameters, self.accelerator)
                norm += float(whole(self.accelerator.clip_grad_norm_(parameters, config.gradient_clip)))
                with self.model.weights.guarded(units):
                    for unit in units:
                        self.optimizers[unit].step()
        n = len(parts)
        sums = add_up(sums, self.accelerator)
        means = {"loss": sums["loss"] / n, "entropy": sums["entropy"] / n, "gradient": norm / n}
        if stage.kl:
            means["kl"] = sums["kl"] / n
        if as_sampled:  # else another role's update lies between the two log-probabilities
            means["logp_gap"] = largest(gap, self.accelerator)
        self._moved.update(units)
        return {f"{key}_{role}": value for key, value in means.items()}

    def _rescored(self, role: Role, rows: Sequence[Row]) -> list[Row]:
        """In half precision the rows with log-probabilities as training computes them: rounding in rollouts differs."""
        dtype = self.model.weights.body(role).plain.get_input_embeddings().weight.dtype
        if dtype == torch.float32:
            return list(rows)
        out = []
        with torch.no_grad(), self.model.weights.acting_as(role) as model:
            for row in rows:
                (batch,) = batches([row], len(row.ids), self.accelerator.device)
                logp = token_logprobs(model, batch, self.config.temperature)[0].tolist()
                out.append(replace(row, logprobs=[0.0, *logp]))
        return out

    @contextmanager
    def _saving_memory(self, model: Any) -> Iterator[None]:
        """With ``gradient_checkpointing``, activations are computed again where the backward pass needs them."""
        if not self.config.gradient_checkpointing:
            yield
            return
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()  # transformers does it in training mode alone
        try:
            yield
        finally:
            model.eval()
            model.gradient_checkpointing_disable()

    def _share(self, rows: Sequence[Row]) -> list[Batch]:
        """This process's batches of the rows."""
        return my_batches(batches(rows, self.config.batch_tokens, self.accelerator.device), self.accelerator)

    def _pull(self, role: Role, logp: Tensor, batch: Batch, count: int) -> Tensor:
        """The anchor's term: k3 to the role's weights at the stage's start, over ``count`` tokens."""
        with torch.no_grad():
            anchor = token_logprobs(self._reference[role], batch, self.config.temperature)
        return k3(logp, anchor, batch.mask, count)

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
        tensors = self._tensors()
        if self.accelerator.is_main_process:
            folder, state = self.folder / "checkpoints", {"cursor": vars(self.cursor), "metrics": self.metrics.length}
            name = f"{self.cursor.total:06d}-{self.cursor.stage}"
            checkpoint.save_state(folder / name, tensors, state | {"seed": self.seed})
            checkpoint.prune(folder, keep=2)
        self.accelerator.wait_for_everyone()

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"adapter.{key}": value for key, value in self.model.weights.state().items()}
        tensors |= {f"start.{key}": value for key, value in self._start.items()}
        for unit, optimizer in self.optimizers.items():
            for i, moments in optimizer.state_dict()["state"].items():
                known = {key: whole(torch.as_tensor(value)) for key, value in moments.items()}
                tensors |= {f"optimizer.{unit}.{i}.{key}": value for key, value in known.items()}
        return tensors

    def _resume(self, folder: Path) -> int:
        tensors, state = checkpoint.load_state(folder)
        if state["seed"] != self.seed:
            raise CheckpointError(f"{str(folder)!r} was made with seed {state['seed']}, not {self.seed}")
        pick = {
            part: {key.removeprefix(f"{part}."): value for key, value in tensors.items() if key.startswith(f"{part}.")}
            for part in ("adapter", "start", "optimizer")
        }
        self.cursor = Cursor(**state["cursor"])
        self._start = pick["start"]
        self.model.weights.load_state(pick["adapter"])
        if self.cursor.iteration > 0:
            stage = self.config.stages[self.cursor.stage]
            self._set_up(stage)
            for unit, optimizer in self.optimizers.items():
                parameters = list(self.model.weights.unit(unit).values())
                moments: dict[int, dict[str, Tensor]] = {}
                for key, value in pick["optimizer"].items():
                    owner, index, name = key.split(".")
                    if owner == unit:
                        known = split_like(parameters[int(index)], value) if value.dim() else value  # no shape: a count
                        moments.setdefault(int(index), {})[name] = known
                optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
        return int(state["metrics"])
