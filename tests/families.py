"""Tiny random models of real architectures with the families' real chat templates; tokenizers are trained here."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from hiplan.models.bases import ModelSpec
from hiplan.models.local import LocalModel
from hiplan.models.settings import LoraSettings, WeightMode, WeightsConfig
from hiplan.models.weights import RoleWeights

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 8,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.3,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """``config``: the name of the architecture's config class. ``special``: tokens of the template, ``end`` first."""

    template: str
    config: str
    special: tuple[str, ...]
    added: tuple[str, ...] = ()  # added tokens that are not special
    plain: tuple[str, ...] = ()  # added tokens that are ordinary text, as SentencePiece vocabularies have them
    bos: str | None = None
    eos: str | None = None
    options: tuple[tuple[str, Any], ...] = ()


QWEN = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
LLAMA = ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>", "<|end_of_text|>")
GEMMA = ("<end_of_turn>", "<start_of_turn>", "<bos>", "<eos>")
THINK = ("<think>", "</think>", "<tool_call>", "</tool_call>")
DEEPSEEK = ("<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")
BLANK = ("\n", "\n\n", "  ")
FAMILIES = {
    "llama3": Family("llama3", "LlamaConfig", LLAMA, bos="<|begin_of_text|>"),
    "llama3.1": Family("llama3_1", "LlamaConfig", LLAMA, bos="<|begin_of_text|>"),
    "qwen2.5": Family("qwen2_5", "Qwen2Config", QWEN, ("<tool_call>", "</tool_call>")),
    "qwen3": Family("qwen3", "Qwen3Config", QWEN, THINK),
    "qwen3-2507": Family("qwen3_instruct_2507", "Qwen3Config", QWEN, THINK),
    "gemma": Family("gemma", "GemmaConfig", GEMMA, ("<b>", "</b>"), BLANK, bos="<bos>", eos="<eos>"),
    "gemma2": Family(
        "gemma", "Gemma2Config", GEMMA, ("<b>", "</b>"), BLANK, bos="<bos>", eos="<eos>",
        options=(("sliding_window", 24),),
    ),
    "gemma3": Family(
        "gemma3", "Gemma3TextConfig", GEMMA, ("<b>", "</b>"), BLANK, bos="<bos>", eos="<eos>",
        options=(
            ("sliding_window", 24),
            ("layer_types", ["sliding_attention", "full_attention", "sliding_attention"]),
        ),
    ),
    "phi3": Family(
        "phi3", "Phi3Config", ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|endoftext|>"),
        eos="<|endoftext|>", options=(("sliding_window", 24),),
    ),
    "mistral": Family(
        "", "MistralConfig", ("</s>", "<s>", "[INST]", "[/INST]"), bos="<s>", eos="</s>",
        options=(("sliding_window", 24),),
    ),
    "deepseek-r1": Family("deepseek_r1_distill", "Qwen2Config", DEEPSEEK, THINK, bos="<｜begin▁of▁sentence｜>"),
}  # fmt: skip
OPENS_THE_THOUGHT = "deepseek-r1"  # its template ends the prompt with <think>
MISTRAL = (  # in the manner of Mistral-7B-Instruct: the system's words stand before the first task
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if m['role'] == 'user' %}{{ '[INST] ' + (first if loop.first else '') + m['content'] }}"
    "{{ ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
TEXT = [
    "make a door from 2 plank and 1 nail",
    "go to the kitchen and take the apple",
    "Plan: 1. get log after 2",
    "Action: ",
]


@cache
def tokenizer(name: str) -> Any:
    family = FAMILIES[name]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        TEXT * 10,
        trainers.BpeTrainer(
            vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=list(family.special),
            show_progress=False,
        ),
    )  # fmt: skip
    fast = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=family.bos, eos_token=family.eos or family.special[0],
        extra_special_tokens=list(family.special),
    )  # fmt: skip
    fast.add_tokens([*family.added, *family.plain])
    file = TEMPLATES / f"{family.template}.jinja"
    fast.chat_template = file.read_text() if family.template else MISTRAL
    return fast


def model(name: str, mode: WeightMode = "split", seed: int = 0, executor: str | None = None) -> LocalModel:
    """A model of the family with noise on its adapters; with ``executor`` the executor is of that family."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bases = {role: base(family) for role, family in (("planner", name), ("executor", executor or name))}
        config = WeightsConfig(mode=mode, lora=LoraSettings(rank=2, alpha=4))
        specs = {
            "planner": ModelSpec(tokenizer(name), bases["planner"].config),
            "executor": ModelSpec(tokenizer(executor or name), bases["executor"].config),
        }
        weights = RoleWeights(bases["planner"], config, seed, bases["executor"] if mode == "separate" else None)
        with torch.no_grad():
            for unit in (unit for body in weights.bodies for unit in body.units):
                for parameter in weights.unit(unit).values():
                    parameter += 0.1 * torch.randn(parameter.shape)
    return LocalModel(weights, specs)  # type: ignore[arg-type]


def base(name: str) -> Any:
    """Random weights in the family's architecture."""
    family, words = FAMILIES[name], tokenizer(name)
    options = SIZES | dict(family.options)
    config = getattr(transformers, family.config)(
        vocab_size=len(words), pad_token_id=words.convert_tokens_to_ids(family.special[0]), bos_token_id=None,
        eos_token_id=words.eos_token_id, **options,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()
