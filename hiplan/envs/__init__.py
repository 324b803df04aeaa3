"""Embedded environments: ``crafting`` and ``household``, with task distributions and panels.

``make_env(task)`` builds by ``task.env``. A user's own environment comes as a ``TaskSuite``.
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
