"""A local model on transformers and peft: batched sampling with a KV cache kept across turns.

Per call: encode only what is new, process it in one forward pass with the rows' ends aligned, then
sample token by token until every row has ended. Ids and log-probabilities are exactly those of the
distribution that was sampled: temperature applied, no top-p, no top-k. (For greedy decoding the
log-probabilities are those at temperature 1.)
"""

from __future__ import annotations

import importlib.resources
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from hiplan.errors import ConfigError
from hiplan.files import read_object
from hiplan.model import Completion, Request
from hiplan.models.cache import BatchCache, KVStore, Slot
from hiplan.models.chat import ChatCodec
from hiplan.models.settings import DType, WeightsConfig
from hiplan.models.weights import RoleWeights
from hiplan.prompts import FULL, STYLES, Prompts
from hiplan.text import shorten
from hiplan.trace import Role


@dataclass
class Usage:
    """Counts since the model was loaded. ``needed``: tokens that had to be processed once."""

    processed: int = 0
    needed: int = 0
    sampled: int = 0
    forwards: int = 0
    seconds: float = 0.0


class Side:
    """What a role needs besides weights: tokenizer, chat template, window, and the shape of its caches.

    ``window``: the most tokens of a conversation. ``plain_delimiters``: see ``ChatCodec``. Raises ``ConfigError`` for a
    chat template whose delimiters cannot be derived or are plain text, for layers that keep other states than keys and
    values, and where nothing says how long a window is.
    """

    def __init__(self, tokenizer: Any, config: Any, window: int | None = None, plain_delimiters: bool = False) -> None:
        self.tokenizer, self.codec = tokenizer, ChatCodec(tokenizer, plain_delimiters)
        text: Any = config.get_text_config()
        known: int | None = getattr(text, "max_position_embeddings", None)
        if known is None and window is None:
            raise ConfigError(f"a {text.model_type} model does not say how long its window is; give window")
        self.window = min(limit for limit in (known, window) if limit is not None)
        if not hasattr(text, "num_attention_heads"):
            raise ConfigError(f"a {text.model_type} model has no attention heads; expected keys and values to keep")
        self.layers = int(text.num_hidden_layers)
        self.heads = int(getattr(text, "num_key_value_heads", None) or text.num_attention_heads)
        self.size = int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
        self._kinds: set[str] | None = set(text.layer_types) if getattr(text, "layer_types", None) else None
        self._sliding: int | None = getattr(text, "sliding_window", None)
        self._additive = text._attn_implementation == "eager"
        if unknown := (self._kinds or set()) - {"full_attention", "sliding_attention"}:
            raise ConfigError(
                f"the model has layers of the kind {sorted(unknown)[0]!r}; expected attention alone, whose keys and "
                "values can be kept across turns"
            )

    def mask(self, positions: Tensor, seen: int, dtype: torch.dtype) -> Any:
        """What tokens at ``positions`` (B, T) may attend to of the first ``seen``, as the architecture wants it."""
        columns = torch.arange(seen, device=positions.device)
        full = (columns <= positions[:, :, None])[:, None]  # (B, 1, T, seen)
        near = full if self._sliding is None else full & (columns > positions[:, :, None] - self._sliding)[:, None]
        if self._additive:
            least = torch.finfo(dtype).min
            full, near = ((~m).to(dtype) * least for m in (full, near))
        if self._kinds is None:
            return near
        return {"full_attention": full, "sliding_attention": near}


class LocalModel:
    """Both roles on this machine. ``load`` builds one; ``complete`` answers as the ``Model`` protocol says.

    ``keep_reasoning``: later turns see what a thinking model thought. Without it they do not, at the cost of processing
    each answer twice and of one training row per turn.
    """

    def __init__(self, weights: RoleWeights, sides: Mapping[Role, Side], prompts: Prompts = FULL) -> None:
        self.weights, self.sides, self.prompts = weights, dict(sides), prompts
        self.keep_reasoning = True
        self.base = ""  # the name it was loaded by
        self.loaded_with: dict[str, Any] = {}  # how the base was read, for whoever loads it again
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
        """Load a base model by the name of a shipped asset or a folder, with fresh or saved adapters.

        ``prompts``: what the roles are asked and how their answers are read, instead of the style each was made for.
        ``dtype``: ``auto`` takes what the folder says, or float32 where whole models are trained. ``window``: the most
        tokens of a conversation, if fewer than the model's. ``plain_delimiters``: take a chat template that marks turns
        with plain text, too (see ``ChatCodec``).
        Raises ``ConfigError`` where there is no such model.
        """
        config = weights or WeightsConfig()
        planner = load_base(name, config, dtype)
        executor = load_base(config.executor_model or name, config, dtype) if config.mode == "separate" else planner
        roles = RoleWeights(planner.model, config, seed, executor.model if executor is not planner else None)
        if adapters is not None:
            roles.load(adapters)
        sides: dict[Role, Side] = {
            "planner": Side(planner.tokenizer, planner.model.config, window, plain_delimiters),
            "executor": Side(executor.tokenizer, executor.model.config, window, plain_delimiters),
        }
        model = LocalModel(roles, sides, prompts or planner.prompts.with_executor_of(executor.prompts))
        model.keep_reasoning = keep_reasoning
        model.base = name
        model.loaded_with = {"dtype": dtype, "window": window, "keep_reasoning": keep_reasoning}
        model.loaded_with |= {"plain_delimiters": True} if plain_delimiters else {}  # older stages do not say
        return model

    def to(self, device: torch.device) -> LocalModel:
        """Move all weights; caches are emptied."""
        self.weights.to(device)
        self.release()
        return self

    # -- sampling ----------------------------------------------------------------------------

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order. All requests must have the same role."""
        if not requests:
            return []
        began = time.perf_counter()
        role = requests[0].role
        side, store = self.sides[role], self._store(role)
        if side.codec.thinks_first and not self.keep_reasoning:
            raise ConfigError(
                "the chat template opens the thought itself, so reasoning must be kept; set keep_reasoning"
            )
        prompts, news, slots = [], [], []
        for request in requests:
            prompt, new, slot = self._new_tokens(request, store)
            prompts.append(prompt)
            news.append(new)
            slots.append(slot)
        starts = [slot.length + len(new) for slot, new in zip(slots, news, strict=True)]
        limits = [min(r.decoding.limit(r.role), side.window - start) for r, start in zip(requests, starts, strict=True)]
        fits = [i for i, limit in enumerate(limits) if limit > 0]
        out = [Completion("", prompt_ids=tuple(prompt), finish="window") for prompt in prompts]
        if fits:
            picked = _Batch(
                [requests[i] for i in fits],
                [news[i] for i in fits],
                [slots[i] for i in fits],
                [limits[i] for i in fits],
            )
            with self.weights.sampling(role) as model:
                sampled = self._sample(model, side, store, picked)
            for i, (ids, logprobs) in zip(fits, sampled, strict=True):
                ended = bool(ids) and ids[-1] in side.codec.end_ids
                finish: Literal["stop", "length"] = "stop" if ended else "length"
                said = side.codec.read(ids)
                dropped = 0 if self.keep_reasoning else said.thought
                if dropped:  # what follows the prompt will be another text
                    slots[i].length = starts[i]
                out[i] = Completion(
                    said.text, tuple(ids), tuple(logprobs), tuple(prompts[i]), finish, said.reasoning, dropped
                )
        self.usage.seconds += time.perf_counter() - began
        return out

    def _new_tokens(self, request: Request, store: KVStore) -> tuple[list[int], list[int], Slot]:
        """The prompt's tokens, all tokens not yet in the cache, and the conversation's slot."""
        segments, pending = request.conversation.segments, request.conversation.pending()
        before = segments[-len(pending) - 1] if len(segments) > len(pending) else None
        prompt = self.sides[request.role].codec.prompt(pending, before)
        slot = store.slot(request.conversation)
        known = request.conversation.ids()
        new = known[slot.length :] + prompt
        self.usage.needed += len(prompt) + (1 if known else 0)
        return prompt, new, slot

    def _sample(
        self, model: nn.Module, side: Side, store: KVStore, batch: _Batch
    ) -> list[tuple[list[int], list[float]]]:
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
        logits = self._forward(model, side, cache, ids, positions, trash, int((lengths + counts).max()))
        lengths = lengths + counts
        self.usage.processed += int(counts.sum())

        uniform = np.stack(
            [np.random.Generator(np.random.Philox(r.seed)).random(max(batch.limits)) for r in batch.requests]
        )
        uniforms = torch.from_numpy(uniform).to(device)  # (B, longest limit)
        temperature = torch.tensor([r.decoding.temperature for r in batch.requests], device=device)
        limits = torch.tensor(batch.limits, device=device)
        ends = torch.tensor(sorted(side.codec.end_ids), device=device)
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
            going = int(running.sum())
            if not going:
                break
            if 2 * going <= len(current) > 8:  # most have ended: go on with the others alone
                store.give_back([batch.slots[i] for i in current.tolist()], cache, first, int(lengths.max()))
                current, token, running = current[running], token[running], running[running]
                cache = store.borrow([batch.slots[i] for i in current.tolist()], room)
            positions = torch.where(running, lengths[current], trash)[:, None]
            seen = int(lengths[current].max()) + 1
            logits = self._forward(model, side, cache, token[:, None], positions, trash, seen)
            lengths[current] += running.long()
            self.usage.processed += going
            self.usage.needed += going
        store.give_back([batch.slots[i] for i in current.tolist()], cache, first, int(lengths.max()))
        for slot, length in zip(batch.slots, lengths.tolist(), strict=True):
            slot.length = length
        self.usage.sampled += sum(len(ids) for ids, _ in out)
        return out

    def _forward(
        self, model: nn.Module, side: Side, cache: BatchCache, ids: Tensor, positions: Tensor, trash: int, seen: int
    ) -> Tensor:
        """Logits after each row's last token, (B, V). ``positions`` (B, T) say where each token is written."""
        cache.positions, cache.seen = positions, seen
        self.usage.forwards += 1
        within = positions.masked_fill(positions == trash, 0)
        logits: Tensor = model(
            input_ids=ids,
            attention_mask=side.mask(within, seen, cache.keys[0].dtype),
            position_ids=within,
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
        units, version = self.weights.units[role], self.weights.version(role)
        known = self._stores.get(units)
        if known is None or known[0] != version:
            side, parameter = self.sides[role], self.weights.body(role).plain.get_input_embeddings().weight
            store = KVStore(side.layers, side.heads, side.size, parameter.dtype, parameter.device)
            self._stores[units] = known = (version, store)
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
    shipped = Path(str(importlib.resources.files("hiplan"))) / "assets"
    for folder in (Path(name), shipped / name):
        if (folder / "config.json").is_file():
            return folder
    assets = sorted(p.parent.name for p in shipped.glob("*/config.json"))
    raise ConfigError(
        f"no model at {name!r}; expected a folder with config.json and weights, or one of {', '.join(assets)} "
        "(nothing is downloaded)"
    )


@dataclass(frozen=True)
class Base:
    """A base model from disk, its tokenizer, and the prompts it was made for."""

    model: Any
    tokenizer: Any
    prompts: Prompts


def load_base(name: str, config: WeightsConfig, dtype: DType = "auto") -> Base:
    """Read a model folder. Raises ``ConfigError`` where it cannot be, and without what ``quantize`` needs."""
    folder = find_model(name)
    if config.method == "full":  # small updates of bfloat16 weights would be rounded away
        if dtype == "bfloat16":
            raise ConfigError("method full trains in float32; use dtype auto or float32, or method lora on bfloat16")
        dtype = "float32"
    options: dict[str, Any] = {"dtype": dtype, "local_files_only": True}
    if config.quantize == "4bit":
        options["quantization_config"] = _four_bits()
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, **options)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises anything for broken files
        why = shorten(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}", 200)
        raise ConfigError(f"the model folder {str(folder)!r} cannot be loaded: {why}") from None
    if model.config.get_text_config() is not model.config:
        raise ConfigError(f"the model in {str(folder)!r} takes more than text; save its language model by itself")
    about = folder / "hiplan.json"
    style = read_object(about, "model's description").get("prompts", "full") if about.is_file() else "full"
    if not isinstance(style, str) or style not in STYLES:
        raise ConfigError(f"{str(about)!r} has the prompts {style!r}; expected one of {', '.join(STYLES)}")
    return Base(model, tokenizer, STYLES[style])


def _four_bits() -> Any:
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None or not torch.cuda.is_available():
        raise ConfigError(
            "weights.quantize: 4bit needs bitsandbytes and a GPU; install bitsandbytes there, or use quantize: none"
        )
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
