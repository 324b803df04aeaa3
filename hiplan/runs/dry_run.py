"""What a run would need: parameters and estimated memory, from a model built on the meta device."""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM

from hiplan.errors import ConfigError
from hiplan.evaluation.evaluate import BATCH
from hiplan.models.bases import find_model
from hiplan.models.weights import RoleWeights
from hiplan.runs.job import parameters
from hiplan.runs.settings import RunConfig
from hiplan.trace import ROLES

ARCHITECTURES = Path(str(importlib.resources.files("hiplan"))) / "assets" / "architectures"
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
    except (OSError, ValueError) as error:
        raise ConfigError(f"the config of {name!r} cannot be read: {str(error).splitlines()[0]}") from None
    facts = json.loads(known.read_text())
    return AutoConfig.for_model(facts.pop("model_type"), **facts, dtype="bfloat16")


def needs(settings: RunConfig) -> Table:
    """Parameters and gigabytes, by what takes them."""
    weights, config = settings.weights, settings.train
    shapes = [architecture(settings.model)]
    if weights.mode == "separate":
        shapes.append(architecture(weights.executor_model or settings.model))
    with torch.device("meta"):
        bases = [AutoModelForCausalLM.from_config(shape) for shape in shapes]  # type: ignore[no-untyped-call]
        roles = RoleWeights(bases[0], weights, executor_base=bases[1] if len(bases) > 1 else None)
    count = parameters(roles)
    stored: str = "float32" if weights.method == "full" else settings.dtype
    if stored == "auto":
        stored = str(shapes[0].dtype or "float32").removeprefix("torch.")
    size = BYTES[stored]
    base = sum(p.numel() for body in roles.bodies for p in body.plain.parameters())
    lines = {"base weights": base * (0.55 if weights.quantize == "4bit" else size)}
    copies = {roles.units[role]: base if weights.method == "full" else roles.adapted(role) for role in ROLES}
    if weights.method == "full":
        lines["gradients and Adam's moments"] = 3 * size * count["trained"]
    else:
        lines["adapters, gradients and Adam's moments"] = 16 * count["trained"]
        if weights.quantize == "none":
            lines["merged copies for rollouts"] = size * sum(copies.values())
    dragged = weights.mode == "joint" or (weights.mode == "partial" and weights.shared == "always")
    if any(stage.kl for stage in config.stages) or (dragged and weights.quantize == "none"):
        lines["copies of a stage's start, for kl and drift"] = size * sum(copies.values())
    text = shapes[0].get_text_config()
    tokens, hidden = config.batch_tokens, text.hidden_size
    kept = (2 if config.gradient_checkpointing else 0) * text.num_hidden_layers + KEPT * (
        1 if config.gradient_checkpointing else text.num_hidden_layers
    )
    lines["activations of an update"] = tokens * hidden * kept * size / 2
    lines["logits of an update"] = 3 * 4 * tokens * text.vocab_size
    episodes, turns = max(config.groups * config.group_size, BATCH), max(config.turns, settings.eval_turns)
    plans = {"never": 1, "on_failure": 9}.get(config.replan, turns)  # the most, each with its question
    for role, shape, length in (
        ("planner", shapes[0], 512 + plans * (config.plan_tokens + 128)),
        ("executor", shapes[-1], 512 + turns * (config.action_tokens + 64)),
    ):
        each = token_bytes(shape, size)  # twice: the slots, and a scratch for those of a batch
        longest = min(length, settings.window or length, shape.get_text_config().max_position_embeddings)
        lines[f"{role}'s key-value caches, {episodes} of {longest:,} tokens"] = (
            2 * each * longest * episodes
        )  # a scratch
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


def token_bytes(shape: Any, size: int) -> int:
    """What one token's keys and values take."""
    text = shape.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * head * size)


def gigabytes(amount: float) -> str:
    return f"{amount / 2**30:.2f} GiB"
