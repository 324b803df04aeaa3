"""The run that tests/test_kill.py kills: three short stages in a folder, from wherever they stand to their end."""

from pathlib import Path

import torch
from doubles import Letters, letters, random_model

from hiplan.envs import TaskSuite
from hiplan.models.adapters import save_weights
from hiplan.training.config import Stage, TrainConfig
from hiplan.training.trainer import ProgressiveTrainer

STAGES = (
    Stage(name="executor", trains=("executor",), plans="oracle", iterations=9, learning_rate=0.01, no_plan=0.3),
    Stage(name="planner", trains=("planner",), iterations=7, learning_rate=0.01, kl=0.1),
    Stage(name="joint", trains=("planner", "executor"), iterations=8, learning_rate=0.01),
)


def train(folder: Path) -> None:
    torch.set_num_threads(1)
    model = random_model(seed=1)
    config = TrainConfig(stages=STAGES, groups=3, group_size=4, plan_tokens=4, action_tokens=4, turns=2)
    suite = TaskSuite("letters", Letters, lambda rng: letters(rng.randint(1, 2)))
    run = ProgressiveTrainer(model, suite, config=config, output_dir=folder, resume=True, checkpoint_every=2)
    run.train()
    save_weights(model.weights, folder / "adapters")
