"""Base models: loading them from a folder, and what a role has to know about its base besides the weights."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from hiplan.errors import ConfigError
from hiplan.files import read_object
from hiplan.models.chat import ChatCodec
from hiplan.models.settings import DType, WeightsConfig
from hiplan.prompts import STYLES, Prompts
from hiplan.text import shorten


@dataclass(frozen=True)
class Base:
    """A base model from disk, its tokenizer, and the prompts it was made for."""

    model: Any
    tokenizer: Any
    prompts: Prompts


def load_base(name: str, config: WeightsConfig, dtype: DType = "auto") -> Base:
    """Load a model folder. Raises ``ConfigError`` if that fails, or if what ``quantize`` needs is missing."""
    folder = find_model(name)
    if config.method == "full":  # bfloat16 would round small updates to nothing
        if dtype == "bfloat16":
            raise ConfigError("method full trains in float32; use dtype auto or float32, or method lora on bfloat16")
        dtype = "float32"
    options: dict[str, Any] = {"dtype": dtype, "local_files_only": True}
    if config.quantize == "4bit":
        options["quantization_config"] = _four_bits()
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, **options)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # for broken files transformers raises any kind of exception
        why = shorten(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}", 200)
        raise ConfigError(f"the model folder {str(folder)!r} cannot be loaded: {why}") from None
    if model.config.get_text_config() is not model.config:
        raise ConfigError(
            f"the model in {str(folder)!r} takes more than text; save its language model alone and give that folder"
        )
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


def find_model(name: str) -> Path:
    """The folder of a model, given its path or the name of a shipped one (``tiny-v1``). Raises ``ConfigError``."""
    shipped = Path(str(importlib.resources.files("hiplan"))) / "assets"
    for folder in (Path(name), shipped / name):
        if (folder / "config.json").is_file():
            return folder
    assets = sorted(p.parent.name for p in shipped.glob("*/config.json"))
    raise ConfigError(
        f"no model at {name!r}; expected a folder with config.json and weights, or one of {', '.join(assets)} "
        "(nothing is downloaded)"
    )


class ModelSpec:
    """What a role has to know about its base besides the weights: tokenizer, chat template, window, cache shape, mask.

    ``window``: the most tokens of a conversation, if fewer than the model's. ``plain_delimiters``: see ``ChatCodec``.
    Raises ``ConfigError`` if the chat template's delimiters cannot be derived or are plain text, if layers have other
    states than keys and values, and if neither the model nor ``window`` gives a limit.
    """

    def __init__(self, tokenizer: Any, config: Any, window: int | None = None, plain_delimiters: bool = False) -> None:
        self.tokenizer, self.codec = tokenizer, ChatCodec(tokenizer, plain_delimiters)
        text: Any = config.get_text_config()
        known: int | None = getattr(text, "max_position_embeddings", None)
        if known is None and window is None:
            raise ConfigError(f"the config of this {text.model_type} model has no max_position_embeddings; set window")
        self.window = min(limit for limit in (known, window) if limit is not None)
        if not hasattr(text, "num_attention_heads"):
            raise ConfigError(
                f"a {text.model_type} model has no attention heads; expected a transformer with attention"
            )
        self.layers = int(text.num_hidden_layers)
        self.heads = int(getattr(text, "num_key_value_heads", None) or text.num_attention_heads)
        self.size = int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
        self._kinds: set[str] | None = set(text.layer_types) if getattr(text, "layer_types", None) else None
        self._sliding: int | None = getattr(text, "sliding_window", None)
        self._additive = text._attn_implementation == "eager"
        if unknown := (self._kinds or set()) - {"full_attention", "sliding_attention"}:
            raise ConfigError(
                f"the model has layers of the kind {sorted(unknown)[0]!r}; expected attention layers only, whose keys "
                "and values can be cached across turns"
            )

    def mask(self, positions: Tensor, seen: int, dtype: torch.dtype) -> Any:
        """The attention mask, in the architecture's form: tokens at ``positions`` (B, T), over the first ``seen``."""
        columns = torch.arange(seen, device=positions.device)
        full = (columns <= positions[:, :, None])[:, None]  # (B, 1, T, seen)
        near = full if self._sliding is None else full & (columns > positions[:, :, None] - self._sliding)[:, None]
        if self._additive:
            least = torch.finfo(dtype).min
            full, near = ((~m).to(dtype) * least for m in (full, near))
        if self._kinds is None:
            return near
        return {"full_attention": full, "sliding_attention": near}
