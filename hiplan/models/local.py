"""A local model on transformers and peft: batched sampling with a KV cache kept across turns.

Per call: encode only what is new, process it in one forward pass with the rows' ends aligned, then
sample token by token until every row has ended. Ids and log-probabilities are exactly those of the
distribution that was sampled: temperature applied, no top-p, no top-k. (For greedy decoding the
log-probabilities are those at temperature 1.)
"""

from __future__ import annotations

import importlib.resources
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from hiplan.errors import ConfigError
from hiplan.model import Completion, Request
from hiplan.models.cache import BatchCache, KVStore, Slot
from hiplan.models.chat import ChatCodec
from hiplan.models.settings import LoraSettings, WeightMode
from hiplan.models.weights import RoleWeights
from hiplan.prompts import FULL, STYLES, Prompts
from hiplan.trace import Role


@dataclass
class Usage:
    """Counts since the model was loaded. ``needed``: tokens that had to be processed once."""

    processed: int = 0
    needed: int = 0
    sampled: int = 0
    forwards: int = 0
    seconds: float = 0.0


class LocalModel:
    """Both roles on this machine. ``load`` builds one; ``complete`` answers as the ``Model`` protocol says."""

    def __init__(self, weights: RoleWeights, tokenizer: Any, prompts: Prompts = FULL) -> None:
        self.weights, self.tokenizer, self.prompts = weights, tokenizer, prompts
        self.codec = ChatCodec(tokenizer)
        self.usage = Usage()
        config: Any = weights.model.get_base_model().config
        self.window = int(config.max_position_embeddings)
        self._layers = int(config.num_hidden_layers)
        self._heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
        self._size = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        self._stores: dict[str, tuple[tuple[int, ...], KVStore]] = {}

    @staticmethod
    def load(
        name: str = "tiny-v1",
        weights: WeightMode = "split",
        lora: LoraSettings | None = None,
        seed: int = 0,
        adapters: Path | None = None,
    ) -> LocalModel:
        """Load a base model by the name of a shipped asset or a folder, with fresh or saved adapters.

        Raises ``ConfigError`` where there is no such model.
        """
        folder = find_model(name)
        try:
            base = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the model folder {str(folder)!r} cannot be loaded: {str(error).splitlines()[0]}"
            ) from None
        about = folder / "hiplan.json"
        style = json.loads(about.read_text()).get("prompts", "full") if about.is_file() else "full"
        roles = RoleWeights(base, weights, lora, seed)
        if adapters is not None:
            roles.load(adapters)
        return LocalModel(roles, tokenizer, STYLES[style])

    # -- sampling ----------------------------------------------------------------------------

    @torch.inference_mode()
    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order. All requests must have the same role."""
        if not requests:
            return []
        began = time.perf_counter()
        role = requests[0].role
        model, store = self.weights.merged(role), self._store(role)
        prompts, news, slots = [], [], []
        for request in requests:
            prompt, new, slot = self._new_tokens(request, store)
            prompts.append(prompt)
            news.append(new)
            slots.append(slot)
        limits = [
            min(r.decoding.limit(r.role), self.window - slot.length - len(new))
            for r, slot, new in zip(requests, slots, news, strict=True)
        ]
        fits = [i for i, limit in enumerate(limits) if limit > 0]
        out = [Completion("", prompt_ids=tuple(prompt), finish="window") for prompt in prompts]
        if fits:
            picked = _Batch(
                [requests[i] for i in fits],
                [news[i] for i in fits],
                [slots[i] for i in fits],
                [limits[i] for i in fits],
            )
            sampled = self._sample(model, store, picked)
            for i, (ids, logprobs) in zip(fits, sampled, strict=True):
                ended = bool(ids) and ids[-1] == self.codec.end_id
                finish: Literal["stop", "length"] = "stop" if ended else "length"
                out[i] = Completion(self.codec.decode(ids), tuple(ids), tuple(logprobs), tuple(prompts[i]), finish)
        self.usage.seconds += time.perf_counter() - began
        return out

    def _new_tokens(self, request: Request, store: KVStore) -> tuple[list[int], list[int], Slot]:
        """The prompt's tokens, all tokens not yet in the cache, and the conversation's slot."""
        segments, pending = request.conversation.segments, request.conversation.pending()
        before = segments[-len(pending) - 1] if len(segments) > len(pending) else None
        prompt = self.codec.prompt(pending, before)
        slot = store.slot(request.conversation)
        known = request.conversation.ids()
        new = known[slot.length :] + prompt
        self.usage.needed += len(prompt) + (1 if known else 0)
        return prompt, new, slot

    def _sample(self, model: nn.Module, store: KVStore, batch: _Batch) -> list[tuple[list[int], list[float]]]:
        device = next(model.parameters()).device
        rows, width = len(batch.requests), max(map(len, batch.news))
        lengths = torch.tensor([slot.length for slot in batch.slots], device=device)  # (B,)
        first = int(lengths.min())
        counts = torch.tensor([len(new) for new in batch.news], device=device)
        room = int((lengths + counts).max()) + max(batch.limits) + 1
        cache = store.borrow(batch.slots, room)
        trash = room - 1  # padding is written here and never attended to
        ids = torch.zeros(rows, width, dtype=torch.long, device=device)
        for i, new in enumerate(batch.news):
            ids[i, width - len(new) :] = torch.tensor(new, device=device)
        offset = torch.arange(width, device=device)[None] - (width - counts)[:, None]  # (B, T), negative: padding
        positions = torch.where(offset >= 0, lengths[:, None] + offset, trash)
        logits = self._forward(model, cache, ids, positions, trash, int((lengths + counts).max()))
        lengths = lengths + counts
        self.usage.processed += int(counts.sum())

        uniform = np.stack(
            [np.random.Generator(np.random.Philox(r.seed)).random(max(batch.limits)) for r in batch.requests]
        )
        uniforms = torch.from_numpy(uniform).to(device)  # (B, longest limit)
        temperature = torch.tensor([r.decoding.temperature for r in batch.requests], device=device)
        limits = torch.tensor(batch.limits, device=device)
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
            running = running & (token != self.codec.end_id) & (step + 1 < limits[current])
            going = int(running.sum())
            if not going:
                break
            if 2 * going <= len(current) > 8:  # most have ended: go on with the others alone
                store.give_back([batch.slots[i] for i in current.tolist()], cache, first, int(lengths.max()))
                current, token, running = current[running], token[running], running[running]
                cache = store.borrow([batch.slots[i] for i in current.tolist()], room)
            positions = torch.where(running, lengths[current], trash)[:, None]
            seen = int(lengths[current].max()) + 1
            logits = self._forward(model, cache, token[:, None], positions, trash, seen)
            lengths[current] += running.long()
            self.usage.processed += going
            self.usage.needed += going
        store.give_back([batch.slots[i] for i in current.tolist()], cache, first, int(lengths.max()))
        for slot, length in zip(batch.slots, lengths.tolist(), strict=True):
            slot.length = length
        self.usage.sampled += sum(len(ids) for ids, _ in out)
        return out

    def _forward(
        self, model: nn.Module, cache: BatchCache, ids: Tensor, positions: Tensor, trash: int, seen: int
    ) -> Tensor:
        """Logits after each row's last token, (B, V). ``positions`` (B, T) say where each token is written."""
        cache.positions, cache.seen = positions, seen
        self.usage.forwards += 1
        padding = positions == trash
        columns = torch.arange(seen, device=ids.device)
        mask = columns <= positions.masked_fill(padding, 0)[:, :, None]  # (B, T, seen)
        logits: Tensor = model(
            input_ids=ids,
            attention_mask=mask[:, None],
            position_ids=positions.masked_fill(padding, 0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1].float()

    def release(self) -> None:
        """Free all caches; a conversation that goes on is processed anew."""
        self._stores.clear()

    def _store(self, role: Role) -> KVStore:
        """The role's cache; emptied when its weights have changed."""
        name, version = self.weights.adapter[role], self.weights.version(role)
        known = self._stores.get(name)
        if known is None or known[0] != version:
            parameter = next(self.weights.model.parameters())
            store = KVStore(self._layers, self._heads, self._size, parameter.dtype, parameter.device)
            self._stores[name] = known = (version, store)
        return known[1]


@dataclass(frozen=True)
class _Batch:
    requests: list[Request]
    news: list[list[int]]
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


def find_model(name: str) -> Path:
    """The folder of a shipped asset (``tiny-v1``) or of a path. Raises ``ConfigError`` where there is none."""
    shipped = Path(str(importlib.resources.files("hiplan"))) / "assets" / name
    for folder in (Path(name), shipped):
        if (folder / "config.json").is_file():
            return folder
    assets = sorted(p.parent.name for p in shipped.parent.glob("*/config.json")) if shipped.parent.is_dir() else []
    raise ConfigError(
        f"no model at {name!r}; expected a folder with config.json and weights, or one of {', '.join(assets)} "
        "(nothing is downloaded)"
    )


def load_config(name: str) -> Any:
    """The architecture of a model without its weights."""
    return AutoConfig.from_pretrained(find_model(name), local_files_only=True)
