"""Training: the progressive trainer, its stages, rewards and credit, and the functions of an algorithm.

    from hiplan.training import ProgressiveTrainer, RewardWeights, Stage

Names load on first use, because some of them import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Algorithm": "hiplan.training.algorithm",
    "AlgorithmConfig": "hiplan.training.config",
    "Collect": "hiplan.training.collect",
    "Collector": "hiplan.training.collect",
    "Credit": "hiplan.training.credit",
    "Decision": "hiplan.training.credit",
    "Loss": "hiplan.training.losses",
    "Modulator": "hiplan.training.credit",
    "ProgressiveTrainer": "hiplan.training.trainer",
    "Reward": "hiplan.training.algorithm",
    "RewardWeights": "hiplan.training.rewards",
    "Rollout": "hiplan.training.collect",
    "Schedule": "hiplan.training.algorithm",
    "Stage": "hiplan.training.config",
    "TrainConfig": "hiplan.training.config",
    "group_center": "hiplan.training.credit",
    "per_episode": "hiplan.training.credit",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from hiplan.training.algorithm import Algorithm as Algorithm
    from hiplan.training.algorithm import Reward as Reward
    from hiplan.training.algorithm import Schedule as Schedule
    from hiplan.training.collect import Collect as Collect
    from hiplan.training.collect import Collector as Collector
    from hiplan.training.collect import Rollout as Rollout
    from hiplan.training.config import AlgorithmConfig as AlgorithmConfig
    from hiplan.training.config import Stage as Stage
    from hiplan.training.config import TrainConfig as TrainConfig
    from hiplan.training.credit import Credit as Credit
    from hiplan.training.credit import Decision as Decision
    from hiplan.training.credit import Modulator as Modulator
    from hiplan.training.credit import group_center as group_center
    from hiplan.training.credit import per_episode as per_episode
    from hiplan.training.losses import Loss as Loss
    from hiplan.training.rewards import RewardWeights as RewardWeights
    from hiplan.training.trainer import ProgressiveTrainer as ProgressiveTrainer


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'hiplan.training' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
