"""Embedded environments: ``crafting`` and ``household``; ``make_env(task)`` builds by ``task.env``."""

from hiplan.env import EnvFactory, Environment
from hiplan.envs.crafting import Crafting
from hiplan.envs.household import Household
from hiplan.errors import TaskError
from hiplan.task import Task

__all__ = ["ENVIRONMENTS", "Crafting", "Household", "make_env"]

ENVIRONMENTS: dict[str, EnvFactory] = {"crafting": Crafting, "household": Household}


def make_env(task: Task) -> Environment:
    """Build the environment a task names. Raises ``TaskError`` for an unknown name or bad parameters."""
    factory = ENVIRONMENTS.get(task.env)
    if factory is None:
        raise TaskError(f"no environment is called {task.env!r}; expected one of {', '.join(sorted(ENVIRONMENTS))}")
    return factory(task)
