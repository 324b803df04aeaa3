"""Compare the rollout speed of joint, split, partial and separate weights.

    python benchmarks/weights.py --episodes 96 --threads 2

New adapters do not change the output, so that every mode samples the same
tokens. Merged copies are rebuilt before each rollout, as after an update.
"""

from __future__ import annotations

import argparse
import random
import time
from statistics import median
from typing import get_args

import torch

from hiplan import Executor, Planner, make_env
from hiplan.envs import train_mix
from hiplan.model import Decoding
from hiplan.models.local import LocalModel, Usage
from hiplan.models.settings import WeightMode, WeightsConfig
from hiplan.sampler import Job, Sampler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-v1", help="a shipped model or a folder")
    parser.add_argument("--episodes", type=int, default=96, help="episodes per rollout")
    parser.add_argument("--threads", type=int, default=2, help="number of torch threads")
    parser.add_argument("--repeats", type=int, default=5, help="number of rollouts per mode")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    modes = get_args(WeightMode)
    models = {mode: LocalModel.load(args.model, WeightsConfig(mode=mode)) for mode in modes}
    seconds: dict[str, list[float]] = {mode: [] for mode in modes}
    tokens: set[int] = set()
    for repeat in range(args.repeats + 1):  # the first is a warm-up
        for mode in modes:  # alternate, so that slow periods affect all modes
            wall, count = once(models[mode], args.episodes)
            if repeat:
                seconds[mode].append(wall)
                tokens.add(count)
    if len(tokens) > 1:
        raise SystemExit(f"the modes processed different numbers of tokens: {sorted(tokens)}")
    base = median(seconds["joint"])
    print("weights    seconds (median of runs)  tokens/s  against joint")
    for mode, walls in seconds.items():
        runs = ", ".join(f"{wall:.2f}" for wall in walls)
        wall, count = median(walls), next(iter(tokens))
        print(f"{mode:<9}  {wall:>6.2f} ({runs})  {count / wall:>8.0f}  {wall / base:>6.2f}")


def once(model: LocalModel, episodes: int) -> tuple[float, int]:
    """Seconds and tokens of one rollout of training tasks."""
    model.weights.load_state(model.weights.state())  # as after an update
    model.usage = Usage()
    rng = random.Random(0)
    planner, executor = Planner(model.prompts), Executor(model.prompts)
    jobs = [Job(train_mix()(rng), planner, executor, seed) for seed in range(episodes)]
    began = time.perf_counter()
    Sampler(model, make_env, Decoding(1.0, plan_tokens=128, action_tokens=32)).run(jobs)
    return time.perf_counter() - began, model.usage.processed


if __name__ == "__main__":
    main()
