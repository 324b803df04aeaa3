"""Estimate the parameters and the memory of a run from a model on the meta device, without loading weights."""

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
ACTIVATION_BYTES = 34  # for a backward pass, per token, layer and hidden unit, with two bytes per value


def architecture(name: str) -> Any:
    """The config in the model's folder, or of the known architecture with that name. Raises ``ConfigError``."""
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


def memory_table(settings: RunConfig) -> Table:
    """A table of parameters and GiB per purpose."""
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
    frozen_sharing = weights.mode == "joint" or (weights.mode == "partial" and weights.shared == "always")
    if any(stage.kl for stage in config.stages) or (frozen_sharing and weights.quantize == "none"):
        lines["copies of a stage's first weights, for kl and drift"] = size * sum(copies.values())
    text = shapes[0].get_text_config()
    tokens, hidden = config.batch_tokens, text.hidden_size
    kept = (2 if config.gradient_checkpointing else 0) * text.num_hidden_layers + ACTIVATION_BYTES * (
        1 if config.gradient_checkpointing else text.num_hidden_layers
    )
    lines["activations of an update"] = tokens * hidden * kept * size / 2
    lines["logits of an update"] = 3 * 4 * tokens * text.vocab_size
    episodes, turns = max(config.groups * config.group_size, BATCH), max(config.turns, settings.eval_turns)
    plans = {"never": 1, "on_failure": 9}.get(config.replan, turns)  # the most plans of an episode
    for role, shape, length in (
        ("planner", shapes[0], 512 + plans * (config.plan_tokens + 128)),
        ("executor", shapes[-1], 512 + turns * (config.action_tokens + 64)),
    ):
        each = token_bytes(shape, size)
        longest = min(length, settings.window or length, shape.get_text_config().max_position_embeddings)
        lines[f"{role}'s key-value caches, {episodes} of {longest:,} tokens"] = (
            2 * each * longest * episodes  # the caches and a copy of those in a batch
        )
    table = Table(title=f"{settings.model}, {weights.mode} weights", header_style="bold")
    table.add_column("what")
    table.add_column("", justify="right")
    table.add_row("parameters", f"{count['total']:,}")
    table.add_row("of which trained", f"{count['trained']:,} ({count['trained'] / count['total']:.2%})")
    for name, amount in lines.items():
        table.add_row(name, gigabytes(amount))
    table.add_row("total, estimated", gigabytes(sum(lines.values())), style="bold")
    table.caption = f"base in {stored}, one process, all conversations at their longest"
    return table


def token_bytes(shape: Any, size: int) -> int:
    """The bytes of one token's keys and values in all layers."""
    text = shape.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * head * size)


def gigabytes(amount: float) -> str:
    return f"{amount / 2**30:.2f} GiB"
