"""What one role learns from its rows: the update of the policy gradient, with what anchors and measures it.

Owns what belongs to a stage: the optimizers of the units of weights that learn, the weights at the stage's start, and
copies of those to anchor to.
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
from hiplan.training.processes import add_up, largest, my_batches, sum_gradients


class Learner:
    """Updates the weights of ``model``; ``begin`` a stage first, or ``load`` one that was begun."""

    def __init__(
        self, model: LocalModel, config: TrainConfig, accelerator: Accelerator, seed: int, loss: Loss | None = None
    ) -> None:
        self.model, self.config, self.accelerator, self.seed = model, config, accelerator, seed
        self.loss = loss or self._clipped
        self.stage: Stage
        self.optimizers: dict[str, torch.optim.AdamW] = {}  # by unit of weights
        self.start: dict[str, Tensor] = {}
        self._reference: dict[Role, nn.Module] = {}
        self._dragged: tuple[Role, ...] = ()
        self._moved: set[str] = set()  # units that have learned in this iteration

    def _clipped(self, logp: Tensor, logp_old: Tensor, advantage: Tensor, mask: Tensor, denominator: float) -> Tensor:
        low, high, dual = self.config.clip_low, self.config.clip_high, self.config.dual_clip
        return clipped_loss(
            logp, logp_old, advantage, mask, clip_low=low, clip_high=high, dual_clip=dual, denominator=denominator
        )

    def begin(self, stage: Stage) -> None:
        """Freeze the roles that do not learn; optimizer moments start anew in each stage."""
        self.start = {key: value.cpu() for key, value in self.model.weights.state().items()}
        self.set_up(stage)

    def set_up(self, stage: Stage) -> None:
        """Optimizers of the units that learn, and copies of the weights at the stage's start where they are needed."""
        self.stage, weights, config = stage, self.model.weights, self.config
        weights.train_only(stage.trains)
        self.optimizers = {
            unit: torch.optim.AdamW(
                weights.unit(unit).values(), stage.learning_rate, config.betas, weight_decay=config.weight_decay
            )
            for unit in weights.config.trained(stage.trains)
        }
        self._dragged = tuple(r for r in ROLES if r not in stage.trains and self._learning(r))
        self._reference = {}
        watched = self._dragged if stage.kl or weights.mergeable else ()
        if stage.kl or watched:
            now = weights.state()
            weights.load_state(self.start)
            anchored = stage.trains if stage.kl else ()
            asked = {weights.units[role]: role for role in (*anchored, *watched)}  # joint roles are one
            copies = {units: weights.snapshot(role) for units, role in asked.items()}
            self._reference = {role: copies[weights.units[role]] for role in (*anchored, *watched)}
            weights.load_state(now)

    def _learning(self, role: Role) -> list[str]:
        """The role's units that learn in this stage, be it for another role that shares them."""
        return [unit for unit in self.model.weights.units[role] if unit in self.optimizers]

    def held(self, episodes: Sequence[Episode]) -> list[Row]:
        """Rows of frozen roles that share the trained weights, for the anchor; they carry no advantage."""
        if not self.stage.kl:
            return []
        held = [row for role in self._dragged for e in episodes for row in rows_of(e, role)]
        return held[: self.config.group_size]

    def drift(self, episodes: Sequence[Episode]) -> dict[str, Any]:
        """How far joint weights have moved a frozen role since the stage began: k3 on its latest tokens."""
        out: dict[str, Any] = {}
        for role in [role for role in self._dragged if role in self._reference]:
            held = [row for e in episodes for row in rows_of(e, role)]
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

    def update(self, role: Role, rows: Sequence[Row], held: Sequence[Row], iteration: int) -> dict[str, Any]:
        """``config.updates`` optimizer steps over the rows, each on its share.

        Rows without advantage count in the denominator. ``held`` rows contribute only the KL term. A share without any
        gradient is no step: Adam would move by its moments alone.
        """
        order = list(rows)
        random.Random(derive_seed(self.seed, "order", iteration, role)).shuffle(order)
        config, units = self.config, self._learning(role)
        parts = [part for k in range(config.updates) if (part := order[k :: config.updates]) and self._pulled(part)]
        if not parts:
            return {}
        sums, gap, norm = dict.fromkeys(("loss", "kl"), 0.0), 0.0, 0.0
        parameters = [p for unit in units for p in self.model.weights.unit(unit).values()]
        as_sampled = self._moved.isdisjoint(units)
        with self.model.weights.acting_as(role) as model, self._saving_memory(model):
            for part in parts:
                count = max(1, sum(sum(row.trained[1:]) for row in part))
                for unit in units:
                    self.optimizers[unit].zero_grad()
                for batch in self._share(self._pulled(part)):
                    logp = token_logprobs(model, batch, config.temperature)
                    loss = self.loss(logp, batch.logp_old, batch.advantage, batch.mask, count)
                    if self.stage.kl:
                        pull = self._pull(role, logp, batch, count)
                        loss = loss + self.stage.kl * pull
                        sums["kl"] += pull.item()
                    if loss.requires_grad:  # if not, ``guarded`` says so
                        self.accelerator.backward(loss)
                    sums["loss"] += loss.item()
                    if part is parts[0]:
                        gap = max(gap, ((logp.detach() - batch.logp_old).abs() * batch.mask).max().item())
                for other in self._dragged if held else ():
                    with self.model.weights.acting_as(other) as dragged:
                        for batch in self._share(held):
                            logp = token_logprobs(dragged, batch, config.temperature)
                            self.accelerator.backward(self.stage.kl * self._pull(other, logp, batch, count))
                if not self.model.weights.sharded:  # there the backward pass has summed them
                    sum_gradients(parameters, self.accelerator)
                norm += float(whole(self.accelerator.clip_grad_norm_(parameters, config.gradient_clip)))
                with self.model.weights.guarded(units):
                    for unit in units:
                        self.optimizers[unit].step()
        n = len(parts)
        sums = add_up(sums, self.accelerator)
        means = {"loss": sums["loss"] / n, "gradient": norm / n}
        if self.stage.kl:
            means["kl"] = sums["kl"] / n
        if as_sampled:  # else another role's update lies between the two log-probabilities
            means["logp_gap"] = largest(gap, self.accelerator)
        self._moved.update(units)
        return {f"{key}_{role}": value for key, value in means.items()}

    def _pulled(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that can have a gradient; without advantage the clipped loss has none."""
        every = self.stage.kl or self.loss != self._clipped
        return [row for row in rows if every or row.informative]

    def rescored(self, role: Role, rows: Sequence[Row]) -> list[Row]:
        """In half precision the rows with log-probabilities as training computes them: rounding in rollouts differs."""
        dtype = self.model.weights.body(role).plain.get_input_embeddings().weight.dtype
        if dtype == torch.float32:
            return list(rows)
        out = []
        with torch.no_grad(), self.model.weights.acting_as(role) as model:
            for row in rows:
                if not self._pulled([row]):
                    out.append(row)
                    continue
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

    def next_iteration(self) -> None:
        """Episodes were sampled anew: log-probabilities recorded in them are those of the weights as they are."""
        self._moved.clear()

    def end(self) -> None:
        """The stage is over."""
        self.optimizers = {}

    def state(self) -> dict[str, Tensor]:
        """Weights, those at the stage's start, and the optimizers' moments."""
        tensors = {f"adapter.{key}": value for key, value in self.model.weights.state().items()}
        tensors |= {f"start.{key}": value for key, value in self.start.items()}
        for unit, optimizer in self.optimizers.items():
            for i, moments in optimizer.state_dict()["state"].items():
                known = {key: whole(torch.as_tensor(value)) for key, value in moments.items()}
                tensors |= {f"optimizer.{unit}.{i}.{key}": value for key, value in known.items()}
        return tensors

    def load(self, tensors: Mapping[str, Tensor], stage: Stage | None) -> None:
        """What ``state`` gave; ``stage``: the one that is under way, if any."""
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
                    known = split_like(parameters[int(index)], value) if value.dim() else value  # no shape: a count
                    moments.setdefault(int(index), {})[name] = known
            optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
