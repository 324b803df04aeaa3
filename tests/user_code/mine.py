"""What a user of hiplan writes in a file of their own: an environment, its tasks, a reward and a credit function."""

import numpy as np

from hiplan import StepResult, Task, TaskSuite


class Door:
    """Knock a few times, in any words."""

    def __init__(self, task):
        self.left = task.params["knocks"]

    def reset(self, task):
        return f"Knock {self.left} times."

    def step(self, action):
        self.left -= 1
        return StepResult("The door opens." if not self.left else "Nothing.", float(not self.left), not self.left)

    def state_key(self):
        return self.left

    def close(self):
        pass


def reward(episode, role):
    """Planners earn a quarter, executors three quarters of what the environment gave."""
    return np.float32({"planner": 0.25, "executor": 0.75}[role] * episode.reward)


def credit(decisions):
    """Every decision is worth the same."""
    return np.ones(len(decisions))


suite = TaskSuite("doors", Door, lambda rng: Task(env="doors", params={"knocks": rng.randint(1, 2)}))
