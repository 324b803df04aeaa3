"""Make tiny-v1 from nothing: tokenizer, demonstrations, pretraining. ``python experiments/tiny/build.py --help``

Deterministic for a given seed, torch version and number of threads. The recipe (``demos.Mix`` and the
constants here) was frozen before any reinforcement learning was tuned.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from hiplan.models.chat import ChatCodec
from hiplan.trace import Episode
from tiny.demos import Mix, demonstrate

SPECIAL = ("<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|assistant|>' }}{% generation %}"
    "{{ m['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
HIDDEN, LAYERS, HEADS, INNER, VOCAB, WINDOW = 128, 5, 4, 352, 1152, 1024
MUON_LR, ADAM_LR, WARMUP = 0.02, 2e-3, 100  # AdamW alone did not learn to look recipes up, Muon did in 200 steps
PAD = 1  # its id
MICRO = 1800  # padded tokens in one forward pass
LONGEST = 400  # tokens of a row; the rest of a long failure teaches nothing new
SHORT = Mix(recite=1.0, recite_lines=3)
LOOKUP = Mix(recite=0.3, household=0.0, depths=(1.0,), follow=1.0, no_plan=0.3, broken=0.0)
EASY = Mix(household=0.3, depths=(0.4, 0.6), many_places=0.0)
BROAD = Mix()
SKILL = Mix(
    complete=0.6, renew=0.6, follow=0.85, no_plan_good=0.6, household=0.2, recite=0.15, depths=(0.35, 0.35, 0.2, 0.1)
)
FINAL = Mix(complete=0.45, renew=0.55, follow=0.55, no_plan_good=0.3, depths=(0.2, 0.38, 0.3, 0.12))


@dataclass(frozen=True)
class Part:
    """A stretch of training with optimizers of its own.

    ``phases``: mixes, each with the step of this part at which it ends. ``peak``: highest learning rate, as a share of
    the optimizers'; it falls along a cosine that would end after ``horizon`` steps.
    """

    phases: tuple[tuple[int, Mix], ...]
    peak: float
    horizon: int

    @property
    def steps(self) -> int:
        return self.phases[-1][0]

    def mix(self, step: int) -> Mix:
        return next(mix for end, mix in self.phases if step < end)

    def rate(self, step: int) -> float:
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.horizon)))
        return self.peak * min(1, (step + 1) / WARMUP) * (0.02 + 0.98 * fall)


PARTS = (  # recipes are looked up first; the strategies' final shares come last
    Part(((228, SHORT), (570, LOOKUP), (1140, EASY), (2500, BROAD)), peak=1.0, horizon=3800),
    Part(((1600, FINAL),), peak=0.4, horizon=1600),
    Part(((1150, SKILL),), peak=0.7, horizon=2300),  # crafting was half learned: more of it, and recitals kept
    Part(((400, FINAL),), peak=0.25, horizon=400),
)


def train_tokenizer(seed: int, episodes: int = 2000) -> PreTrainedTokenizerFast:
    """Byte-level BPE on the demonstrations' text: any text can be encoded, the worlds' words are one token."""
    texts = [
        segment.text
        for i in range(episodes)
        for conversation in demonstrate(seed + i, Mix()).conversations.values()
        for segment in conversation.segments
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCAB,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>", model_max_length=WINDOW,
        extra_special_tokens=list(SPECIAL[2:]),
    )  # fmt: skip
    fast.chat_template = TEMPLATE
    return fast


def rows(episode: Episode, codec: ChatCodec) -> list[tuple[list[int], list[bool]]]:
    """Token ids and loss mask, one row per role."""
    out = [codec.row(conversation) for conversation in episode.conversations.values()]
    return [(ids[:LONGEST], own[:LONGEST]) for ids, own in out]


_CODEC: ChatCodec | None = None


def _init(path: str) -> None:
    global _CODEC
    torch.set_num_threads(1)
    _CODEC = ChatCodec(PreTrainedTokenizerFast.from_pretrained(path))


def _batch(job: tuple[int, int, Mix]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """One batch of about ``tokens`` tokens, as padded ids and labels, (B, T) each, sorted by length."""
    index, tokens, mix = job
    rng = random.Random(f"batch {index}")
    found: list[tuple[list[int], list[bool]]] = []
    assert _CODEC is not None
    while sum(len(ids) for ids, _ in found) < tokens:
        found += rows(demonstrate(rng.randrange(2**60), mix), _CODEC)
    groups: list[list[tuple[list[int], list[bool]]]] = [[]]
    for row in sorted(found, key=lambda row: len(row[0])):
        if groups[-1] and (len(groups[-1]) + 1) * len(row[0]) > MICRO:
            groups.append([])
        groups[-1].append(row)
    return [_pad(group) for group in groups]


def _pad(group: list[tuple[list[int], list[bool]]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(ids) for ids, _ in group)
    ids = torch.full((len(group), width), PAD)
    labels = torch.full((len(group), width), -100)
    for i, (row, mask) in enumerate(group):
        ids[i, : len(row)] = torch.tensor(row)
        labels[i, : len(row)] = torch.where(torch.tensor(mask), torch.tensor(row), -100)
    return ids, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/tiny"), help="folder to write the model to")
    parser.add_argument("--tokens", type=int, default=4000, help="tokens in a batch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--start", type=Path, help="start from this folder's weights instead of random ones")
    parser.add_argument("--skip", type=int, default=0, help="parts of the recipe that those weights have had")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.start:
        model = LlamaForCausalLM.from_pretrained(args.start)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.start)
    else:
        tokenizer = train_tokenizer(seed=10_000_000 + args.seed)
        model = LlamaForCausalLM(architecture(tokenizer))
    tokenizer.save_pretrained(args.out)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens", flush=True)
    with multiprocessing.get_context("spawn").Pool(1, _init, (str(args.out),)) as pool:
        for number, part in enumerate(PARTS):
            if number < args.skip:
                continue
            first = args.seed * 10**6 + sum(earlier.steps for earlier in PARTS[:number])
            jobs = ((first + step, args.tokens, part.mix(step)) for step in range(part.steps))
            loss = train(model, part, _ahead(pool, jobs))
            model.save_pretrained(args.out)
    steps = sum(part.steps for part in PARTS)
    about = {"prompts": "brief", "seed": args.seed, "steps": steps, "batch_tokens": args.tokens, "loss": round(loss, 4)}
    (args.out / "hiplan.json").write_text(json.dumps(about, indent=2) + "\n")


def architecture(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Llama, as small as still learns to look recipes up."""
    return LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=WINDOW, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


def train(model: LlamaForCausalLM, part: Part, batches: Iterator[list[tuple[Tensor, Tensor]]]) -> float:
    """One part; returns the mean loss of its last 200 steps, in nats per token of the roles' own."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers: dict[Any, float] = {
        torch.optim.Muon(matrices, lr=MUON_LR, momentum=0.95, weight_decay=0.01): MUON_LR,
        torch.optim.AdamW(others, lr=ADAM_LR, betas=(0.9, 0.98), weight_decay=0.0): ADAM_LR,
    }
    began, tokens, losses = time.time(), 0, []
    for step, micro in enumerate(batches):
        for optimizer, top in optimizers.items():
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = top * part.rate(step)
        count = sum(int((labels[:, 1:] != -100).sum()) for _, labels in micro)
        loss = 0.0
        for ids, labels in micro:
            share = step_loss(model, ids, labels) / count
            share.backward()
            loss += share.item()
            tokens += int((ids != PAD).sum())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss)
        if step % 50 == 0:
            mean, spent = sum(losses[-50:]) / len(losses[-50:]), time.time() - began
            left = spent / (step + 1) * (part.steps - step - 1)
            print(
                f"step {step}/{part.steps}  loss {mean:.4f}  {tokens / spent:.0f} tokens/s  {left:.0f} s left",
                flush=True,
            )
    return sum(losses[-200:]) / len(losses[-200:])


def step_loss(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy over the roles' own tokens; logits only where they are needed."""
    hidden = model.model(input_ids=ids[:, :-1], attention_mask=(ids[:, :-1] != PAD).long()).last_hidden_state
    targets = labels[:, 1:]
    kept = targets != -100
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[kept]), targets[kept], reduction="sum")


def _ahead(pool: Any, jobs: Iterator[Any], depth: int = 6) -> Iterator[Any]:
    """Results of jobs in order, with a few computed ahead."""
    pending = []
    for job in jobs:
        pending.append(pool.apply_async(_batch, (job,)))
        if len(pending) >= depth:
            yield pending.pop(0).get()
    for result in pending:
        yield result.get()


if __name__ == "__main__":
    main()
