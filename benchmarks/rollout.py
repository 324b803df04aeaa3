"""Measure the efficiency of a rollout batch.

    python benchmarks/rollout.py --episodes 96 --threads 2

Prints the tokens processed, those needed with a perfect cache, their ratio, the
speed, and the share of time outside the model.
"""

from __future__ import annotations

import argparse
import random
import resource
import time

import torch

from hiplan import Executor, Planner, load_model, make_env
from hiplan.envs import train_mix
from hiplan.model import Decoding
from hiplan.models.local import Usage
from hiplan.sampler import Job, Sampler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-v1", help="a shipped model or a folder")
    parser.add_argument("--episodes", type=int, default=96, help="episodes in the batch")
    parser.add_argument("--threads", type=int, default=2, help="number of torch threads")
    parser.add_argument("--repeats", type=int, default=3, help="number of batches")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.model)
    print("repeat  episodes  turns  processed  needed  ratio  sampled  tokens/s  outside the model")
    for repeat in range(args.repeats):
        rng = random.Random(repeat)
        planner, executor = Planner(model.prompts), Executor(model.prompts)
        jobs = [Job(train_mix()(rng), planner, executor, seed) for seed in range(args.episodes)]
        model.usage = Usage()
        began = time.perf_counter()
        episodes = Sampler(model, make_env, Decoding(1.0, plan_tokens=128, action_tokens=32)).run(jobs)
        wall, usage = time.perf_counter() - began, model.usage
        print(
            f"{repeat:>6}  {len(episodes):>8}  {sum(len(e.turns) for e in episodes):>5}  {usage.processed:>9}  "
            f"{usage.needed:>6}  {usage.processed / usage.needed:>5.3f}  {usage.sampled:>7}  "
            f"{usage.processed / wall:>8.0f}  {1 - usage.seconds / wall:>17.1%}"
        )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB, {args.threads} threads")


if __name__ == "__main__":
    main()
