"""Make tiny-v1 from nothing: tokenizer, demonstrations, pretraining. ``python experiments/tiny/build.py --help``

Deterministic for a given seed, torch version and number of processes. The recipe (``demos.Mix`` and the
constants here) was frozen before any reinforcement learning was tuned.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.distributed as dist
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiments.tiny.demos import Mix, demonstrate
from hiplan.models.chat import ChatCodec
from hiplan.trace import Episode

SPECIAL = ("<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|assistant|>' }}{% generation %}"
    "{{ m['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
HIDDEN, LAYERS, HEADS, HEAD, INNER, VOCAB, WINDOW = 128, 4, 8, 32, 352, 1152, 1536
THETA = 1e6  # of the rotary positions: most pairs turn slowly, so that names can be matched far away
LOOK_BACK = 6.0  # strength of the first layer's heads that start out looking back
MUON_LR, ADAM_LR, WARMUP = 0.02, 2e-3, 100  # AdamW alone did not learn to copy from the context in 1,000 steps
PAD = 1  # its id
MICRO = 1800  # padded tokens in one forward pass
LONGEST = 512  # tokens of a row; the rest of a long failure teaches nothing new
SKILL = Mix(
    complete=0.7, renew=0.7, follow=0.85, no_plan_good=0.6, household=0.4, recite=0.1, many_places=0.2,
    depths=(0.15, 0.25, 0.35, 0.25), plan_only=0.35,
)  # fmt: skip
FINAL = Mix()
RECIPES, MASTERED = 10, 0.3  # recitals grow up to so many recipes, each time the loss is below this
SKILL_STEPS, FINAL_STEPS, PATIENCE = 1350, 650, 3000


def course() -> Generator[tuple[Mix, float], float, None]:
    """What to train on and the learning rate's share, step by step; is sent each step's loss.

    First recitals, of one more recipe whenever the shorter ones are mastered: heads that look up are learned in minutes
    from two or three recipes, and not at all from ten. Then all that is played, from mostly good play; the
    strategies' shares come last.
    """
    step = 0
    for most in range(2, RECIPES + 1):
        losses: list[float] = []
        while len(losses) < 15 or fmean(losses[-10:]) > MASTERED:
            losses.append((yield Mix(recite=1.0, recite_lines=most), min(1.0, (step + 1) / WARMUP)))
            step += 1
            if step == PATIENCE:
                raise RuntimeError(f"recipes were not learned to be looked up in {PATIENCE} steps; try another --seed")
    steps = SKILL_STEPS + FINAL_STEPS
    for step in range(steps):
        yield SKILL if step < SKILL_STEPS else FINAL, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))


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
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>", model_max_length=WINDOW,
        extra_special_tokens=list(SPECIAL[2:]),
    )  # fmt: skip
    fast.chat_template = TEMPLATE
    return fast


def rows(episode: Episode, codec: ChatCodec) -> list[tuple[list[int], list[bool]]]:
    """Token ids and loss mask, one row per role."""
    out = [codec.row(conversation) for conversation in episode.conversations.values()]
    return [(ids[:LONGEST], own[:LONGEST]) for ids, own in out]


def draw(seed: str, tokens: int, mix: Mix, codec: ChatCodec) -> list[tuple[Tensor, Tensor]]:
    """About ``tokens`` tokens of demonstrations, as padded ids and labels, (B, T) each, sorted by length."""
    rng = random.Random(seed)
    found: list[tuple[list[int], list[bool]]] = []
    while sum(len(ids) for ids, _ in found) < tokens:
        found += rows(demonstrate(rng.randrange(2**60), mix), codec)
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
    parser.add_argument("--processes", type=int, default=2, help="share the batch among so many, one thread each")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    train_tokenizer(seed=10_000_000 + args.seed).save_pretrained(args.out)
    with tempfile.TemporaryDirectory() as meeting:
        torch.multiprocessing.spawn(work, (args, meeting), nprocs=args.processes)  # type: ignore[attr-defined,no-untyped-call]


def work(rank: int, args: argparse.Namespace, meeting: str) -> None:
    """One process: the same model as in the others, a share of each batch."""
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    dist.init_process_group("gloo", init_method=f"file://{meeting}/all", rank=rank, world_size=args.processes)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.out)
    model = LlamaForCausalLM(architecture(tokenizer))
    look_back(model)
    told = train(model, ChatCodec(tokenizer), args, rank)
    if rank == 0:
        about = {"prompts": "brief", "seed": args.seed, "batch_tokens": args.tokens, **told}
        (args.out / "hiplan.json").write_text(json.dumps(about, indent=2) + "\n")
    dist.destroy_process_group()


def architecture(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Llama; eight heads, biases in attention and slow rotary positions learn to look recipes up soonest."""
    return LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, head_dim=HEAD, num_key_value_heads=HEADS, attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": THETA}, max_position_embeddings=WINDOW,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


def look_back(model: LlamaForCausalLM) -> None:
    """Let the first layer's first four heads start out attending 1, 2, 3 and 4 tokens back.

    Rotary positions turn pair i of a key at n against a query at m by f_i (m - n), so constant biases give the score
    A^2 sum_i cos(f_i (m - n - d)), which is highest at distance d. Looking up needs such heads *and* heads that match
    what they bring; from random weights neither is learned before the other.
    """
    attention: Any = model.model.layers[0].self_attn
    frequencies = model.model.rotary_emb.inv_freq  # (size / 2,)
    size, half = 2 * len(frequencies), len(frequencies)
    with torch.no_grad():
        for head, distance in enumerate((1, 2, 3, 4)):
            query, key = (p.bias[head * size : (head + 1) * size] for p in (attention.q_proj, attention.k_proj))
            key[:half] = LOOK_BACK
            query[:half] = LOOK_BACK * torch.cos(frequencies * distance)
            query[half:] = -LOOK_BACK * torch.sin(frequencies * distance)


def train(model: LlamaForCausalLM, codec: ChatCodec, args: argparse.Namespace, rank: int) -> dict[str, float]:
    """Trains and saves; returns the steps taken and the mean loss of the last 200, in nats per own token."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers: dict[Any, float] = {
        torch.optim.Muon(matrices, lr=MUON_LR, momentum=0.95, weight_decay=0.01): MUON_LR,
        torch.optim.AdamW(others, lr=ADAM_LR, betas=(0.9, 0.98), weight_decay=0.0): ADAM_LR,
    }
    if rank == 0:
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    losses: list[float] = []
    began, plan = time.time(), course()
    mix, rate = next(plan)
    while True:
        for optimizer, top in optimizers.items():
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = top * rate
        total, count, seed = 0.0, 0, f"batch {args.seed} {len(losses)} {rank}"
        for ids, labels in draw(seed, args.tokens // args.processes, mix, codec):
            loss = step_loss(model, ids, labels)
            loss.backward()  # type: ignore[no-untyped-call]
            total, count = total + loss.item(), count + int((labels[:, 1:] != -100).sum())
        losses.append(_share(model, total, count))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if rank == 0 and len(losses) % 50 == 0:
            what = f"recitals of {mix.recite_lines}" if mix.recite == 1 else "play"
            spent = time.time() - began
            print(f"step {len(losses)}  {what}  loss {fmean(losses[-50:]):.4f}  {spent:.0f} s", flush=True)
            model.save_pretrained(args.out)
        try:
            mix, rate = plan.send(losses[-1])
        except StopIteration:
            break
    if rank == 0:
        model.save_pretrained(args.out)
    return {"steps": len(losses), "loss": round(fmean(losses[-200:]), 4)}


def _share(model: LlamaForCausalLM, total: float, count: int) -> float:
    """Add up all processes' gradients and make them those of the mean loss, which is returned."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    everything = torch.cat([torch.tensor([total, float(count)]), *(g.flatten() for g in gradients)])
    dist.all_reduce(everything)
    loss, tokens, flat = everything[0], everything[1], everything[2:]
    for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_((part / tokens).view_as(gradient))
    return float(loss / tokens)


def step_loss(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy over the roles' own tokens; logits only where they are needed."""
    hidden = model.model(input_ids=ids[:, :-1], attention_mask=(ids[:, :-1] != PAD).long()).last_hidden_state
    targets = labels[:, 1:]
    kept = targets != -100
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[kept]), targets[kept], reduction="sum")


if __name__ == "__main__":
    main()
