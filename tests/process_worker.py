"""What tests/test_processes.py runs in one process and in two: two short stages, whose weights the first one keeps."""

import sys
from contextlib import suppress
from pathlib import Path

import torch
from doubles import Letters, letters, random_model

from hiplan.envs import TaskSuite
from hiplan.training.config import Stage, TrainConfig
from hiplan.training.processes import exit_now
from hiplan.training.trainer import ProgressiveTrainer

STAGES = (
    Stage(name="executor", trains=("executor",), plans="oracle", iterations=2, learning_rate=0.01, kl=0.1),
    Stage(name="joint", trains=("planner", "executor"), iterations=1, learning_rate=0.01, no_plan=0.3),
)


def train(
    folder: Path, mode: str, method: str = "lora", kl: float = 0.1, shard: bool = False, stop: bool = False
) -> None:
    torch.set_num_threads(1)
    model = random_model(mode, seed=1, method=method)  # type: ignore[arg-type]
    config = TrainConfig(
        stages=tuple(stage.model_copy(update={"kl": stage.kl and kl}) for stage in STAGES),
        groups=3, group_size=4, plan_tokens=4, action_tokens=4, turns=2, batch_tokens=64, shard=shard,
    )  # fmt: skip
    suite = TaskSuite("letters", Letters, lambda rng: letters(rng.randint(1, 2)))
    run = ProgressiveTrainer(model, suite, config=config, output_dir=folder, resume=True, checkpoint_every=1)
    print(f"{run.accelerator.process_index}/{run.accelerator.num_processes}")
    if stop:
        run.on_iteration = lambda row: sys.exit() if row["iteration"] == 1 else None
    run.train()
    model.weights.save(folder / "adapters", write=run.accelerator.is_main_process)
    run.accelerator.end_training()


if __name__ == "__main__":
    with suppress(SystemExit):
        train(
            Path(sys.argv[1]),
            *sys.argv[2:4],
            kl=float(sys.argv[4]),
            shard=sys.argv[5] == "shard",
            stop="stop" in sys.argv[6:],
        )
    exit_now(0)
