"""The embedded environments ``crafting`` and ``household``, their task distributions, and task panels.

``make_env(task)`` builds the embedded environment ``task.env``. Pass other environments as a ``TaskSuite``.
"""

from hiplan.envs.crafting import Crafting
from hiplan.envs.household import Household
from hiplan.envs.tasks import (
    ENVIRONMENTS,
    Panel,
    TaskMix,
    TaskSuite,
    fresh_panel,
    make_env,
    shipped_panel,
    suite,
    train_mix,
)

__all__ = [
    "ENVIRONMENTS",
    "Crafting",
    "Household",
    "Panel",
    "TaskMix",
    "TaskSuite",
    "fresh_panel",
    "make_env",
    "shipped_panel",
    "suite",
    "train_mix",
]
