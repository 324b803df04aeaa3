"""What a run would need: parameters and estimated memory, from a model built on the meta device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM

from experiments.job import parameters
from experiments.settings import RunConfig
from hiplan.errors import ConfigError
from hiplan.models.local import find_model
from hiplan.models.weights import RoleWeights
from hiplan.trace import ROLES

ARCHITECTURES = Path(__file__).with_name("configs") / "architectures"
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
KEPT = 34  # bytes of activations per token, layer and hidden unit that a backward pass needs at two bytes a value


def architecture(name: str) -> Any:
    """The model's config: of its folder, or of a known architecture of that name."""
    known = ARCHITECTURES / f"{Path(name).name}.json"
    try:
        return AutoConfig.from_pretrained(find_model(name), local_files_only=True)
    except ConfigError:
        if not known.is_file():
            raise
    facts = json.loads(known.read_text())
    return AutoConfig.for_model(facts.pop("model_type"), **facts, dtype="bfloat16")


def needs(settings: RunConfig) -> Table:
    """Parameters and gigabytes, by what takes them."""
    weights, config = settings.weights, settings.train
    shapes = [architecture(settings.model)]
    if weights.mode == "separate":
        shapes.append(architecture(weights.executor_model or settings.model))
    with torch.device("meta"):
        bases = [AutoModelForCausalLM.from_config(shape) for shape in shapes]
        roles = RoleWeights(bases[0], weights, executor_base=bases[1] if len(bases) > 1 else None)
    count = parameters(roles)
    stored = str(shapes[0].dtype or "float32").removeprefix("torch.") if settings.dtype == "auto" else settings.dtype
    size = BYTES[stored]
    base = sum(p.numel() for body in roles.bodies for p in body.plain.parameters())
    lines = {"base weights": base * (0.55 if weights.quantize == "4bit" else size)}
    if weights.method == "full":
        lines["gradients and Adam's moments"] = 3 * size * count["trained"]
    else:
        lines["adapters, gradients and Adam's moments"] = 16 * count["trained"]
        if weights.quantize == "none":
            copies = {roles.units[role]: roles.adapted(role) for role in ROLES}
            lines["merged copies for rollouts"] = size * sum(copies.values())
    text = shapes[0].get_text_config()
    tokens, layers, hidden = config.batch_tokens, text.num_hidden_layers, text.hidden_size
    kept = 2 * layers + KEPT if config.gradient_checkpointing else KEPT * layers
    lines["activations of an update"] = tokens * hidden * kept * size / 2
    lines["logits of an update"] = 3 * 4 * tokens * text.vocab_size
    window = min(text.max_position_embeddings, settings.window or text.max_position_embeddings)
    length = min(window, 512 + config.turns * (config.action_tokens + 64))
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head = getattr(text, "head_dim", None) or hidden // text.num_attention_heads
    cache = 2 * layers * heads * head * size * length * config.groups * config.group_size
    lines[f"key-value cache, {config.groups * config.group_size} episodes of {length:,} tokens"] = (
        2 * cache
    )  # and a scratch
    table = Table(title=f"{settings.model}, {weights.mode} weights", header_style="bold")
    table.add_column("what")
    table.add_column("", justify="right")
    table.add_row("parameters", f"{count['total']:,}")
    table.add_row("of which learn", f"{count['trained']:,} ({count['trained'] / count['total']:.2%})")
    for name, amount in lines.items():
        table.add_row(name, gigabytes(amount))
    table.add_row("about, in all", gigabytes(sum(lines.values())), style="bold")
    table.caption = f"an estimate; base in {stored}, one process, every conversation at its longest"
    return table


def gigabytes(amount: float) -> str:
    return f"{amount / 2**30:.2f} GiB"
