"""Policy-gradient updates of one role from its rows, with an optional KL term and a measure of drift.

The learner owns the state of a stage: the optimizers of the trained units of weights, the weights at the start of the
stage, and reference models with those weights.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hiplan.model import derive_seed
from hiplan.models.local import LocalModel
from hiplan.models.shards import split_like, whole
from hiplan.trace import ROLES, Episode, Role
from hiplan.training.batch import Batch, Row, batches, rows_of, token_logprobs
from hiplan.training.config import Stage, TrainConfig
from hiplan.training.losses import Loss, clipped_loss, k3
from hiplan.training.processes import local_batches, max_over_processes, sum_gradients, sum_over_processes


class Learner:
    """Updates the weights of ``model``; call ``begin`` for a new stage or ``load`` for a resumed one first."""

    def __init__(
        self, model: LocalModel, config: TrainConfig, accelerator: Accelerator, seed: int, loss: Loss | None = None
    ) -> None:
        self.model, self.config, self.accelerator, self.seed = model, config, accelerator, seed
        self.loss = loss or self._clipped
        self.stage: Stage
        self.optimizers: dict[str, torch.optim.AdamW] = {}  # by unit of weights
        self.start: dict[str, Tensor] = {}
        self._reference: dict[Role, nn.Module] = {}
        self._frozen_sharing: tuple[Role, ...] = ()
        self._updated_units: set[str] = set()  # in this iteration

    def _clipped(self, logp: Tensor, logp_old: Tensor, advantage: Tensor, mask: Tensor, denominator: float) -> Tensor:
        low, high, dual = self.config.clip_low, self.config.clip_high, self.config.dual_clip
        return clipped_loss(
            logp, logp_old, advantage, mask, clip_low=low, clip_high=high, dual_clip=dual, denominator=denominator
        )

    def begin(self, stage: Stage) -> None:
        """Start a stage: freeze the other roles and create new optimizers."""
        self.start = {key: value.cpu() for key, value in self.model.weights.state().items()}
        self.set_up(stage)

    def set_up(self, stage: Stage) -> None:
        """Create the optimizers of the trained units, and the reference models if the stage needs them."""
        self.stage, weights, config = stage, self.model.weights, self.config
        weights.train_only(stage.trains)
        self.optimizers = {
            unit: torch.optim.AdamW(
                weights.unit(unit).values(), stage.learning_rate, config.betas, weight_decay=config.weight_decay
            )
            for unit in weights.config.trained(stage.trains)
        }
        self._frozen_sharing = tuple(r for r in ROLES if r not in stage.trains and self._trained_units(r))
        self._reference = {}
        measured = self._frozen_sharing if stage.kl or weights.mergeable else ()
        if stage.kl or measured:
            now = weights.state()
            weights.load_state(self.start)
            roles = (*(stage.trains if stage.kl else ()), *measured)
            by_units = {weights.units[role]: role for role in roles}  # roles with joint weights share one reference
            copies = {units: weights.snapshot(role) for units, role in by_units.items()}
            self._reference = {role: copies[weights.units[role]] for role in roles}
            weights.load_state(now)

    def _trained_units(self, role: Role) -> list[str]:
        """The role's units that are trained in this stage, including those trained for another role."""
        return [unit for unit in self.model.weights.units[role] if unit in self.optimizers]

    def anchor_rows(self, episodes: Sequence[Episode]) -> list[Row]:
        """Rows for the KL term of frozen roles that share trained weights; they have no advantage."""
        if not self.stage.kl:
            return []
        rows = [row for role in self._frozen_sharing for e in episodes for row in rows_of(e, role)]
        return rows[: self.config.group_size]

    def drift(self, episodes: Sequence[Episode]) -> dict[str, Any]:
        """How far shared weights have moved a frozen role since the start of the stage: k3 (nats) on recent tokens."""
        out: dict[str, Any] = {}
        for role in [role for role in self._frozen_sharing if role in self._reference]:
            recent = [row for e in episodes for row in rows_of(e, role)]
            rows = recent[:: max(1, len(recent) // 16)]
            total, count = 0.0, 0
            with torch.no_grad(), self.model.weights.acting_as(role) as model:
                for batch in batches(rows, self.config.batch_tokens, self.accelerator.device):
                    logp = token_logprobs(model, batch, self.config.temperature)
                    start = token_logprobs(self._reference[role], batch, self.config.temperature)
                    total += k3(logp, start, batch.mask, 1.0).item()
                    count += int(batch.mask.sum())
            out[f"drift_{role}"] = total / count if count else None
        return out

    def update(self, role: Role, rows: Sequence[Row], anchor_rows: Sequence[Row], iteration: int) -> dict[str, Any]:
        """Shuffle the rows, split them into ``config.updates`` parts, and take one optimizer step per part.

        Rows without advantage count in the denominator of the loss. ``anchor_rows`` contribute only the KL term. A part
        without any gradient is skipped, because Adam would still move the weights by its moments. Returns metrics.
        """
        order = list(rows)
        random.Random(derive_seed(self.seed, "order", iteration, role)).shuffle(order)
        config, units = self.config, self._trained_units(role)
        parts = [order[k :: config.updates] for k in range(config.updates)]
        parts = [part for part in parts if self._with_gradient(part)]
        if not parts:
            return {}
        sums, gap, norm = dict.fromkeys(("loss", "kl"), 0.0), 0.0, 0.0
        parameters = [p for unit in units for p in self.model.weights.unit(unit).values()]
        as_sampled = self._updated_units.isdisjoint(units)
        with self.model.weights.acting_as(role) as model, self._saving_memory(model):
            for part in parts:
                count = max(1, sum(sum(row.trained[1:]) for row in part))
                for unit in units:
                    self.optimizers[unit].zero_grad()
                for batch in self._local_batches(self._with_gradient(part)):
                    logp = token_logprobs(model, batch, config.temperature)
                    loss = self.loss(logp, batch.logp_old, batch.advantage, batch.mask, count)
                    if self.stage.kl:
                        kl = self._kl_term(role, logp, batch, count)
                        loss = loss + self.stage.kl * kl
                        sums["kl"] += kl.item()
                    if loss.requires_grad:  # otherwise ``guarded`` raises below
                        self.accelerator.backward(loss)
                    sums["loss"] += loss.item()
                    if part is parts[0]:
                        gap = max(gap, ((logp.detach() - batch.logp_old).abs() * batch.mask).max().item())
                for other in self._frozen_sharing if anchor_rows else ():
                    with self.model.weights.acting_as(other) as frozen:
                        for batch in self._local_batches(anchor_rows):
                            logp = token_logprobs(frozen, batch, config.temperature)
                            self.accelerator.backward(self.stage.kl * self._kl_term(other, logp, batch, count))
                if not self.model.weights.sharded:  # with sharded weights the backward pass sums them
                    sum_gradients(parameters, self.accelerator)
                norm += float(whole(self.accelerator.clip_grad_norm_(parameters, config.gradient_clip)))
                with self.model.weights.guarded(units):
                    for unit in units:
                        self.optimizers[unit].step()
        n = len(parts)
        sums = sum_over_processes(sums, self.accelerator)
        means = {"loss": sums["loss"] / n, "gradient": norm / n}
        if self.stage.kl:
            means["kl"] = sums["kl"] / n
        if as_sampled:  # otherwise another role's update has changed the weights since sampling
            means["logp_gap"] = max_over_processes(gap, self.accelerator)
        self._updated_units.update(units)
        return {f"{key}_{role}": value for key, value in means.items()}

    def _with_gradient(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that can have a gradient; the clipped loss has none for rows without advantage."""
        every = self.stage.kl or self.loss != self._clipped
        return [row for row in rows if every or row.informative]

    def rescored(self, role: Role, rows: Sequence[Row]) -> list[Row]:
        """In half precision, replace recorded log-probabilities by recomputed ones: rollouts round differently."""
        dtype = self.model.weights.body(role).plain.get_input_embeddings().weight.dtype
        if dtype == torch.float32:
            return list(rows)
        out = []
        with torch.no_grad(), self.model.weights.acting_as(role) as model:
            for row in rows:
                if not self._with_gradient([row]):
                    out.append(row)
                    continue
                (batch,) = batches([row], len(row.ids), self.accelerator.device)
                logp = token_logprobs(model, batch, self.config.temperature)[0].tolist()
                out.append(replace(row, logprobs=[0.0, *logp]))
        return out

    @contextmanager
    def _saving_memory(self, model: Any) -> Iterator[None]:
        """Turn on gradient checkpointing, if configured: the backward pass recomputes the activations."""
        if not self.config.gradient_checkpointing:
            yield
            return
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()  # transformers checkpoints only in training mode
        try:
            yield
        finally:
            model.eval()
            model.gradient_checkpointing_disable()

    def _local_batches(self, rows: Sequence[Row]) -> list[Batch]:
        """This process's share of the batches."""
        return local_batches(batches(rows, self.config.batch_tokens, self.accelerator.device), self.accelerator)

    def _kl_term(self, role: Role, logp: Tensor, batch: Batch, count: int) -> Tensor:
        """The KL term: k3 to the role's weights at the start of the stage, divided by ``count`` tokens."""
        with torch.no_grad():
            reference = token_logprobs(self._reference[role], batch, self.config.temperature)
        return k3(logp, reference, batch.mask, count)

    # -- state -------------------------------------------------------------------------------

    def next_iteration(self) -> None:
        """Start an iteration, whose episodes were sampled from the current weights."""
        self._updated_units.clear()

    def end(self) -> None:
        """End the stage."""
        self.optimizers = {}

    def state(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint: the weights, those at the start of the stage, and the optimizers' moments."""
        tensors = {f"adapter.{key}": value for key, value in self.model.weights.state().items()}
        tensors |= {f"start.{key}": value for key, value in self.start.items()}
        for unit, optimizer in self.optimizers.items():
            for i, moments in optimizer.state_dict()["state"].items():
                known = {key: whole(torch.as_tensor(value)) for key, value in moments.items()}
                tensors |= {f"optimizer.{unit}.{i}.{key}": value for key, value in known.items()}
        return tensors

    def load(self, tensors: Mapping[str, Tensor], stage: Stage | None) -> None:
        """Restore the tensors of ``state``; ``stage``: the unfinished stage, if any."""
        pick = {
            part: {key.removeprefix(f"{part}."): value for key, value in tensors.items() if key.startswith(f"{part}.")}
            for part in ("adapter", "start", "optimizer")
        }
        self.start = pick["start"]
        self.model.weights.load_state(pick["adapter"])
        if stage is None:
            return
        self.set_up(stage)
        for unit, optimizer in self.optimizers.items():
            parameters = list(self.model.weights.unit(unit).values())
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in pick["optimizer"].items():
                owner, index, name = key.split(".")
                if owner == unit:
                    known = split_like(parameters[int(index)], value) if value.dim() else value  # scalar: step count
                    moments.setdefault(int(index), {})[name] = known
            optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
