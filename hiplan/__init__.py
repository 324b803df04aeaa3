"""hiplan: train and run planner-executor language-model agents.

    from hiplan import Agent, Executor, Planner, Task, load_model

Names load on first use, so ``import hiplan`` is fast and does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Acted": "hiplan.effects",
    "Agent": "hiplan.agent",
    "ApiModel": "hiplan.models.api",
    "Completion": "hiplan.model",
    "Decoding": "hiplan.model",
    "Endpoint": "hiplan.models.api",
    "Environment": "hiplan.env",
    "Episode": "hiplan.trace",
    "Executor": "hiplan.executors",
    "HiplanError": "hiplan.errors",
    "Limits": "hiplan.coordination",
    "Model": "hiplan.model",
    "NoPlanner": "hiplan.planners",
    "OracleExecutor": "hiplan.executors",
    "OraclePlanner": "hiplan.planners",
    "Plan": "hiplan.plan",
    "PlanGraph": "hiplan.coordination",
    "PlanReady": "hiplan.effects",
    "PlanRevision": "hiplan.plan",
    "PlanStep": "hiplan.plan",
    "Planner": "hiplan.planners",
    "ProgressiveTrainer": "hiplan.training.trainer",
    "Sampler": "hiplan.sampler",
    "ScriptedModel": "hiplan.model",
    "StepResult": "hiplan.task",
    "Task": "hiplan.task",
    "TaskSuite": "hiplan.envs",
    "TrainConfig": "hiplan.training.config",
    "UserError": "hiplan.errors",
    "load_agent": "hiplan.loading",
    "load_model": "hiplan.loading",
    "make_env": "hiplan.envs",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from hiplan.agent import Agent as Agent
    from hiplan.coordination import Limits as Limits
    from hiplan.coordination import PlanGraph as PlanGraph
    from hiplan.effects import Acted as Acted
    from hiplan.effects import PlanReady as PlanReady
    from hiplan.env import Environment as Environment
    from hiplan.envs import TaskSuite as TaskSuite
    from hiplan.envs import make_env as make_env
    from hiplan.errors import HiplanError as HiplanError
    from hiplan.errors import UserError as UserError
    from hiplan.executors import Executor as Executor
    from hiplan.executors import OracleExecutor as OracleExecutor
    from hiplan.loading import load_agent as load_agent
    from hiplan.loading import load_model as load_model
    from hiplan.model import Completion as Completion
    from hiplan.model import Decoding as Decoding
    from hiplan.model import Model as Model
    from hiplan.model import ScriptedModel as ScriptedModel
    from hiplan.models.api import ApiModel as ApiModel
    from hiplan.models.api import Endpoint as Endpoint
    from hiplan.plan import Plan as Plan
    from hiplan.plan import PlanRevision as PlanRevision
    from hiplan.plan import PlanStep as PlanStep
    from hiplan.planners import NoPlanner as NoPlanner
    from hiplan.planners import OraclePlanner as OraclePlanner
    from hiplan.planners import Planner as Planner
    from hiplan.sampler import Sampler as Sampler
    from hiplan.task import StepResult as StepResult
    from hiplan.task import Task as Task
    from hiplan.trace import Episode as Episode
    from hiplan.training.config import TrainConfig as TrainConfig
    from hiplan.training.trainer import ProgressiveTrainer as ProgressiveTrainer


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'hiplan' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
