"""Measure rollout speed, update time and peak memory of a large architecture.

    python benchmarks/gpu.py --architecture Llama-3.1-8B-Instruct --episodes 64
    python benchmarks/gpu.py --architecture tiny --device cpu --episodes 4

Uses random weights and a LoRA adapter per role. hiplan train --dry-run with a
file of experiments/configs estimates the memory that the GPU needs.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import repeat
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that `python benchmarks/gpu.py` finds experiments
from hiplan.model import Decoding, Request
from hiplan.models.bases import ModelSpec, find_model
from hiplan.models.local import LocalModel, Usage
from hiplan.models.settings import WeightsConfig
from hiplan.models.weights import RoleWeights
from hiplan.prompts import FULL
from hiplan.runs.dry_run import architecture
from hiplan.trace import ROLES, Conversation, Role
from hiplan.training.batch import Row, batches, token_logprobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--architecture", default="Llama-3.1-8B-Instruct", help="a name in hiplan/assets/architectures, or tiny"
    )
    parser.add_argument("--device", default="cuda", help="torch device")
    parser.add_argument("--episodes", type=int, default=64, help="conversations in the batch")
    parser.add_argument("--turns", type=int, default=4, help="turns per conversation")
    parser.add_argument("--tokens", type=int, default=64, help="the most tokens of an answer")
    parser.add_argument("--batch-tokens", type=int, default=8192, help="padded tokens of one forward pass")
    args = parser.parse_args()
    model = build(args.architecture, torch.device(args.device))
    print(f"{args.architecture}: {sum(p.numel() for p in model.weights.bodies[0].plain.parameters()):,} parameters")
    for role in ROLES:
        measure(model, role, args)
    if args.device == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on {torch.cuda.get_device_name()}")


def build(name: str, device: torch.device) -> LocalModel:
    """A model with random weights in bfloat16 and the shipped tokenizer, whose ids fit any larger vocabulary."""
    config = architecture("tiny-v1" if name == "tiny" else name)
    with device:
        base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    tokenizer = AutoTokenizer.from_pretrained(find_model("tiny-v1"), local_files_only=True)
    weights = RoleWeights(base, WeightsConfig(mode="split"))
    spec = ModelSpec(tokenizer, base.config, 8192)
    return LocalModel(weights, dict.fromkeys(ROLES, spec), FULL).to(device)


def measure(model: LocalModel, role: Role, args: argparse.Namespace) -> None:
    """Sample conversations of a few turns, then update the role once on them."""
    conversations = [Conversation(role) for _ in range(args.episodes)]
    model.usage = Usage()
    began = clock(args.device)
    for turn in range(args.turns):
        for conversation in conversations:
            conversation.ask("You see a table, a chest and a door. " * 4, turn)
        decoding = Decoding(1.0, args.tokens, args.tokens)
        asked = [Request(c, decoding, 1000 * turn + i) for i, c in enumerate(conversations)]
        for conversation, done in zip(conversations, model.complete(asked), strict=True):
            conversation.answer(
                done.text, "action", turn, prompt_ids=done.prompt_ids, ids=done.ids, logprobs=done.logprobs,
                finish=done.finish,
            )  # fmt: skip
    seconds = clock(args.device) - began
    sampled, processed = model.usage.sampled / seconds, model.usage.processed / seconds
    print(f"{role}: rollout {sampled:,.0f} sampled and {processed:,.0f} processed tokens/s")
    model.release()
    model.weights.train_only((role,))
    parameters = list(model.weights.parameters(role).values())
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    rows = [row for c in conversations for row in Row.of(c, repeat(1.0))]
    began, worst = clock(args.device), 0.0
    with model.weights.acting_as(role) as active:
        active.gradient_checkpointing_enable({"use_reentrant": False})
        active.train()
        for batch in batches(rows, args.batch_tokens, torch.device(args.device)):
            logp = token_logprobs(active, batch)
            worst = max(worst, ((logp - batch.logp_old).abs() * batch.mask).max().item())
            (-(logp * batch.mask).sum() / len(rows)).backward()
        active.eval()
    with model.weights.guarded([role]):
        optimizer.step()
    seconds = clock(args.device) - began
    tokens = sum(len(row.ids) for row in rows)
    print(
        f"{role}: update {seconds:.2f} s for {tokens:,} tokens; largest log-probability gap to the rollout {worst:.3f}"
    )
    model.weights.train_only(())


def clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
