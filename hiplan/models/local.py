"""A local model on transformers and peft: batched sampling with a KV cache kept across turns.

Each call encodes only tokens that are not in the cache, processes them in one forward pass with the rows aligned at
their ends, then samples token by token until every row has ended. The log-probabilities are those of the distribution
that was sampled: with temperature, without top-p or top-k. For greedy decoding they are those at temperature 1.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hiplan.errors import ConfigError
from hiplan.model import Completion, Request
from hiplan.models.adapters import load_weights
from hiplan.models.bases import ModelSpec, load_base
from hiplan.models.cache import BatchCache, KVStore, Slot
from hiplan.models.settings import DType, WeightsConfig
from hiplan.models.weights import RoleWeights
from hiplan.prompts import FULL, Prompts
from hiplan.trace import Role


@dataclass
class Usage:
    """Counts since the model was loaded. ``needed``: what ``processed`` would be if no token was processed twice."""

    processed: int = 0
    needed: int = 0
    sampled: int = 0
    forwards: int = 0
    seconds: float = 0.0


class LocalModel:
    """Both roles on local models; ``load`` builds one. Implements ``Model``.

    ``keep_reasoning``: whether later turns see the reasoning of a thinking model. Without it each answer is processed
    twice and each turn is a training row of its own.
    """

    def __init__(self, weights: RoleWeights, specs: Mapping[Role, ModelSpec], prompts: Prompts = FULL) -> None:
        self.weights, self.specs, self.prompts = weights, dict(specs), prompts
        self.keep_reasoning = True
        self.base = ""  # the name or folder it was loaded from
        self.loaded_with: dict[str, Any] = {}  # other arguments of ``load``, to load it again
        self.usage = Usage()
        self._stores: dict[tuple[str, ...], tuple[tuple[int, ...], KVStore]] = {}

    @staticmethod
    def load(
        name: str = "tiny-v1",
        weights: WeightsConfig | None = None,
        seed: int = 0,
        adapters: Path | None = None,
        prompts: Prompts | None = None,
        dtype: DType = "auto",
        window: int | None = None,
        keep_reasoning: bool = True,
        plain_delimiters: bool = False,
    ) -> LocalModel:
        """Load a base model, a shipped one by name or any by folder, with new or saved adapters.

        ``prompts``: what the roles are asked and how their answers are read; default the style each base was made for.
        ``dtype``: ``auto`` takes the dtype in the folder's config, or float32 where whole models are trained.
        ``window``: the most tokens of a conversation, if fewer than the model's. ``plain_delimiters``: also accept a
        chat template that marks turns with plain text (see ``ChatCodec``).
        Raises ``ConfigError`` for a model that is missing or unsuitable.
        """
        config = weights or WeightsConfig()
        planner = load_base(name, config, dtype)
        executor = load_base(config.executor_model or name, config, dtype) if config.mode == "separate" else planner
        roles = RoleWeights(planner.model, config, seed, executor.model if executor is not planner else None)
        if adapters is not None:
            load_weights(roles, adapters)
        specs: dict[Role, ModelSpec] = {
            "planner": ModelSpec(planner.tokenizer, planner.model.config, window, plain_delimiters),
            "executor": ModelSpec(executor.tokenizer, executor.model.config, window, plain_delimiters),
        }
        model = LocalModel(roles, specs, prompts or planner.prompts.with_executor_of(executor.prompts))
        model.keep_reasoning = keep_reasoning
        model.base = name
        model.loaded_with = {"dtype": dtype, "window": window, "keep_reasoning": keep_reasoning}
        model.loaded_with |= {"plain_delimiters": True} if plain_delimiters else {}  # older stages lack the key
        return model

    def to(self, device: torch.device) -> LocalModel:
        """Move all weights and empty the caches."""
        self.weights.to(device)
        self.release()
        return self

    # -- sampling ----------------------------------------------------------------------------

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in the same order. All requests must have the same role."""
        if not requests:
            return []
        began = time.perf_counter()
        role = requests[0].role
        spec, store = self.specs[role], self._store(role)
        if spec.codec.thinks_first and not self.keep_reasoning:
            raise ConfigError(
                "the chat template writes the opening mark of the reasoning itself, so later turns have to keep the "
                "reasoning; set keep_reasoning to true"
            )
        prompts, unseen, slots = [], [], []
        for request in requests:
            prompt, new, slot = self._new_tokens(request, store)
            prompts.append(prompt)
            unseen.append(new)
            slots.append(slot)
        starts = [slot.length + len(new) for slot, new in zip(slots, unseen, strict=True)]
        limits = [min(r.decoding.limit(r.role), spec.window - start) for r, start in zip(requests, starts, strict=True)]
        fits = [i for i, limit in enumerate(limits) if limit > 0]
        out = [Completion("", prompt_ids=tuple(prompt), finish="window") for prompt in prompts]
        if fits:
            batch = _Batch(
                [requests[i] for i in fits],
                [unseen[i] for i in fits],
                [slots[i] for i in fits],
                [limits[i] for i in fits],
            )
            with self.weights.sampling(role) as model:
                sampled = self._sample(model, spec, store, batch)
            for i, (ids, logprobs) in zip(fits, sampled, strict=True):
                ended = bool(ids) and ids[-1] in spec.codec.end_ids
                finish: Literal["stop", "length"] = "stop" if ended else "length"
                said = spec.codec.read(ids)
                dropped = 0 if self.keep_reasoning else said.thought
                if dropped:  # the next prompt has the answer without its reasoning, so process that again
                    slots[i].length = starts[i]
                out[i] = Completion(
                    said.text, tuple(ids), tuple(logprobs), tuple(prompts[i]), finish, said.reasoning, dropped
                )
        self.usage.seconds += time.perf_counter() - began
        return out

    def _new_tokens(self, request: Request, store: KVStore) -> tuple[list[int], list[int], Slot]:
        """The prompt's tokens, all tokens that are not in the cache, and the conversation's slot."""
        segments, pending = request.conversation.segments, request.conversation.pending()
        before = segments[-len(pending) - 1] if len(segments) > len(pending) else None
        prompt = self.specs[request.role].codec.prompt(pending, before)
        slot = store.slot(request.conversation)
        known = request.conversation.ids()
        new = known[slot.length :] + prompt
        self.usage.needed += len(prompt) + (1 if known else 0)
        return prompt, new, slot

    def _sample(
        self, model: nn.Module, spec: ModelSpec, store: KVStore, batch: _Batch
    ) -> list[tuple[list[int], list[float]]]:
        device = next(model.parameters()).device
        rows, width = len(batch.requests), max(map(len, batch.unseen))
        lengths = torch.tensor([slot.length for slot in batch.slots], device=device)  # (B,)
        first = int(lengths.min())
        counts = torch.tensor([len(new) for new in batch.unseen], device=device)
        room = int((lengths + counts).max()) + max(batch.limits) + 1
        cache = store.borrow(batch.slots, room)
        padding = room - 1  # the position where padding is written; no token attends to it
        ids = torch.zeros(rows, width, dtype=torch.long, device=device)
        for i, new in enumerate(batch.unseen):
            ids[i, width - len(new) :] = torch.tensor(new, device=device)
        offset = torch.arange(width, device=device)[None] - (width - counts)[:, None]  # (B, T), negative for padding
        positions = torch.where(offset >= 0, lengths[:, None] + offset, padding)
        logits = self._forward(model, spec, cache, ids, positions, padding, int((lengths + counts).max()))
        lengths = lengths + counts
        self.usage.processed += int(counts.sum())

        uniform = np.stack(
            [np.random.Generator(np.random.Philox(r.seed)).random(max(batch.limits)) for r in batch.requests]
        )
        uniforms = torch.from_numpy(uniform).to(device)  # (B, longest limit)
        temperature = torch.tensor([r.decoding.temperature for r in batch.requests], device=device)
        limits = torch.tensor(batch.limits, device=device)
        ends = torch.tensor(sorted(spec.codec.end_ids), device=device)
        current = torch.arange(rows, device=device)  # the rows still in the batch
        running = torch.ones(rows, dtype=torch.bool, device=device)
        out: list[tuple[list[int], list[float]]] = [([], []) for _ in range(rows)]
        for step in range(max(batch.limits)):
            token, logprob = draw(logits, temperature[current], uniforms[current, step])
            for row, t, p in zip(
                current[running].tolist(), token[running].tolist(), logprob[running].tolist(), strict=True
            ):
                out[row][0].append(t)
                out[row][1].append(p)
            running = running & ~torch.isin(token, ends) & (step + 1 < limits[current])
            left = int(running.sum())
            if not left:
                break
            if 2 * left <= len(current) > 8:  # drop the rows that have ended
                store.give_back([batch.slots[i] for i in current.tolist()], cache, first, int(lengths.max()))
                current, token, running = current[running], token[running], running[running]
                cache = store.borrow([batch.slots[i] for i in current.tolist()], room)
            positions = torch.where(running, lengths[current], padding)[:, None]
            seen = int(lengths[current].max()) + 1
            logits = self._forward(model, spec, cache, token[:, None], positions, padding, seen)
            lengths[current] += running.long()
            self.usage.processed += left
            self.usage.needed += left
        store.give_back([batch.slots[i] for i in current.tolist()], cache, first, int(lengths.max()))
        for slot, length in zip(batch.slots, lengths.tolist(), strict=True):
            slot.length = length
        self.usage.sampled += sum(len(ids) for ids, _ in out)
        return out

    def _forward(
        self,
        model: nn.Module,
        spec: ModelSpec,
        cache: BatchCache,
        ids: Tensor,
        positions: Tensor,
        padding: int,
        seen: int,
    ) -> Tensor:
        """Logits after each row's last token, (B, V). ``positions`` (B, T) are where each token is written."""
        cache.positions, cache.seen = positions, seen
        self.usage.forwards += 1
        within = positions.masked_fill(positions == padding, 0)
        logits: Tensor = model(
            input_ids=ids,
            attention_mask=spec.mask(within, seen, cache.keys[0].dtype),
            position_ids=within,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1].float()

    def release(self) -> None:
        """Free all caches. Conversations that continue are processed again from their first token."""
        self._stores.clear()

    def _store(self, role: Role) -> KVStore:
        """The role's cache; an empty one if its weights have changed."""
        units, version = self.weights.units[role], self.weights.version(role)
        known = self._stores.get(units)
        if known is None or known[0] != version:
            spec, parameter = self.specs[role], self.weights.body(role).plain.get_input_embeddings().weight
            store = KVStore(spec.layers, spec.heads, spec.size, parameter.dtype, parameter.device)
            self._stores[units] = known = (version, store)
        return known[1]


@dataclass(frozen=True)
class _Batch:
    requests: list[Request]
    unseen: list[list[int]]  # tokens that are not in the cache
    slots: list[Slot]
    limits: list[int]


def draw(logits: Tensor, temperature: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Sample by inverting the distribution function: logits (B, V), temperature (B,), uniform (B,) in [0, 1).

    Returns tokens (B,) and their log-probabilities (B,). Temperature 0 takes the most likely token.
    """
    greedy = temperature == 0
    logp = torch.log_softmax(logits / torch.where(greedy, 1.0, temperature)[:, None], dim=-1)
    mass = logp.double().exp().cumsum(-1)
    sampled = (mass <= uniform[:, None] * mass[:, -1:]).sum(-1).clamp_max(logits.shape[-1] - 1)
    token = torch.where(greedy, logits.argmax(-1), sampled)
    return token, logp.gather(-1, token[:, None])[:, 0]
