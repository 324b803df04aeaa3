"""What tests/test_processes.py runs in one process and in two: two short stages, whose weights the first one keeps.

    process_worker.py CASES

``CASES``: JSON, a list of arguments of ``train``. One start of the processes runs all of them, because each start
imports everything again.
"""

import json
import sys
from contextlib import suppress
from pathlib import Path

import torch
from accelerate import PartialState
from doubles import Letters, letters, random_model

from hiplan.cli.app import exit_process
from hiplan.envs import TaskSuite
from hiplan.models.adapters import save_weights
from hiplan.training.config import Stage, TrainConfig
from hiplan.training.trainer import ProgressiveTrainer

STAGES = (
    Stage(name="executor", trains=("executor",), plans="oracle", iterations=2, learning_rate=0.01, kl=0.1),
    Stage(name="joint", trains=("planner", "executor"), iterations=1, learning_rate=0.01, no_plan=0.3),
)


def train(
    folder: Path, mode: str, method: str = "lora", kl: float = 0.1, shard: bool = False, stop: bool = False
) -> None:
    """Run the stages in ``folder``, from wherever they stand; ``stop``: only up to the second iteration."""
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
    save_weights(model.weights, folder / "adapters", write=run.accelerator.is_main_process)


if __name__ == "__main__":
    for case in json.loads(sys.argv[1]):
        with suppress(SystemExit):
            train(Path(case.pop("folder")), **case)
    PartialState().destroy_process_group()
    exit_process(0)
