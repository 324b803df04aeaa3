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
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny.demos import Mix, demonstrate

from hiplan.models.chat import ChatCodec
from hiplan.trace import Episode

SPECIAL = ("<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|assistant|>' }}{% generation %}"
    "{{ m['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
HIDDEN, LAYERS, HEADS, INNER, VOCAB, WINDOW = 128, 5, 4, 352, 1152, 1024
MUON_LR, ADAM_LR, WARMUP = 0.02, 2e-3, 100  # AdamW alone did not learn to look recipes up, Muon did in 200 steps
MICRO = 1800  # padded tokens in one forward pass
LONGEST = 400  # tokens of a row; the rest of a long failure teaches nothing new
SHORT = Mix(recite=1.0, recite_lines=3)
LOOKUP = Mix(recite=0.3, household=0.0, depths=(1.0,), follow=1.0, no_plan=0.3, broken=0.0)
EASY = Mix(household=0.3, depths=(0.4, 0.6), many_places=0.0)
PHASES = ((0.06, SHORT), (0.15, LOOKUP), (0.3, EASY), (1.0, Mix()))  # until which share of training


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
    out = []
    for conversation in episode.conversations.values():
        ids: list[int] = []
        mask: list[bool] = []
        pending, before = [], None
        for segment in conversation.segments:
            if segment.author != "assistant":
                pending.append(segment)
                continue
            prompt = codec.prompt(pending, before)
            text = [*codec.content(segment.text), codec.end_id]
            ids += prompt + text
            mask += [False] * len(prompt) + [segment.trained] * len(text)
            pending, before = [], segment_with_end(segment, codec.end_id)
        out.append((ids[:LONGEST], mask[:LONGEST]))
    return out


def segment_with_end(segment, end_id):
    from dataclasses import replace

    return replace(segment, ids=(end_id,))


_CODEC: ChatCodec | None = None


def _init(path: str) -> None:
    global _CODEC
    torch.set_num_threads(1)
    _CODEC = ChatCodec(PreTrainedTokenizerFast.from_pretrained(path))


def _batch(job: tuple[int, int, float]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """One batch of about ``tokens`` tokens, as padded ids and labels, (B, T) each, sorted by length."""
    index, tokens, progress = job
    mix = next(mix for until, mix in PHASES if progress < until)
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
    ids = torch.full((len(group), width), 1)
    labels = torch.full((len(group), width), -100)
    for i, (row, mask) in enumerate(group):
        ids[i, : len(row)] = torch.tensor(row)
        labels[i, : len(row)] = torch.where(torch.tensor(mask), torch.tensor(row), -100)
    return ids, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[2] / "hiplan/assets/tiny-v1")
    parser.add_argument("--minutes", type=float, default=0, help="stop by time instead of steps (not reproducible)")
    parser.add_argument("--steps", type=int, default=3800)
    parser.add_argument("--tokens", type=int, default=4000, help="tokens in a batch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(seed=10_000_000 + args.seed)
    tokenizer.save_pretrained(args.out)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=WINDOW, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens", flush=True)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = (
        torch.optim.Muon(matrices, lr=MUON_LR, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=ADAM_LR, betas=(0.9, 0.98), weight_decay=0.0),
    )
    jobs = ((args.seed * 10**6 + i, args.tokens, i / args.steps) for i in range(args.steps))
    began, total, recent = time.time(), 0, []
    with multiprocessing.get_context("spawn").Pool(1, _init, (str(args.out),)) as pool:
        for step, micro in enumerate(_ahead(pool, jobs)):
            share = min(1.0, step / args.steps)
            if args.minutes:
                share = (time.time() - began) / 60 / args.minutes
                if share >= 1:
                    break
            rate = min(1, (step + 1) / WARMUP) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
            for optimizer, top in zip(optimizers, (MUON_LR, ADAM_LR), strict=True):
                optimizer.zero_grad()
                for group in optimizer.param_groups:
                    group["lr"] = top * rate
            count = sum(int((labels[:, 1:] != -100).sum()) for _, labels in micro)
            loss = 0.0
            for ids, labels in micro:
                part = step_loss(model, ids, labels) / count
                part.backward()
                loss += part.item()
                total += int((ids != 1).sum())
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            recent.append(loss)
            if step % 50 == 0:
                speed = total / (time.time() - began)
                print(f"step {step} loss {sum(recent[-50:]) / len(recent[-50:]):.4f} rate {rate:.2f} {speed:.0f} tok/s {time.time() - began:.0f} s", flush=True)  # fmt: skip
            if step % 500 == 499:
                model.save_pretrained(args.out)
    model.save_pretrained(args.out)
    meta = {"prompts": "brief", "seed": args.seed, "steps": step + 1, "tokens": total, "loss": sum(recent[-200:]) / 200}
    (args.out / "hiplan.json").write_text(json.dumps(meta, indent=2) + "\n")


def step_loss(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy over the roles' own tokens; logits only where they are needed."""
    hidden = model.model(input_ids=ids[:, :-1], attention_mask=(ids[:, :-1] != 1).long()).last_hidden_state
    targets = labels[:, 1:]
    kept = targets != -100
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[kept]), targets[kept], reduction="sum")


def _ahead(pool, jobs, depth: int = 6):
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
