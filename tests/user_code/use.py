"""The use of mine.py in Python: train in an order of its own, then load a stage and play."""

import random

from mine import credit, reward, suite

from hiplan import ProgressiveTrainer, TrainConfig, load_agent
from hiplan.training import Algorithm, Stage

joint = Stage(name="both", trains=("planner", "executor"), iterations=1)
executor = Stage(name="executor", trains=("executor",), iterations=1)
small = TrainConfig(groups=2, group_size=2, updates=1, turns=4, plan_tokens=8, action_tokens=8)
algorithm, stages = Algorithm(credit=credit), [joint, executor]
trainer = ProgressiveTrainer(
    "tiny-v1", env=suite, rewards=reward, algorithm=algorithm, stages=stages, config=small, output_dir="run"
)
trainer.train()
agent = load_agent("run/stages/executor", make_env=suite.make_env)
print(agent.run(suite.train(random.Random(0))).to_json())
