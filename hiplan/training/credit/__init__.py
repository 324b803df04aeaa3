"""Credit assignment: compute one advantage per decision of an iteration from the rewards. One file per estimator."""

from hiplan.training.credit.center import Floats, group_center, informative
from hiplan.training.credit.decision import Credit, Decision, Estimator, Modulator, per_episode
from hiplan.training.credit.episodic import grpo, leave_one_out
from hiplan.training.credit.imitation import successes

CREDITS: dict[str, Credit] = {
    "grpo": per_episode(grpo),
    "loo": per_episode(leave_one_out),
    "successes": successes,
}
"""The names in settings; name your own as ``module:function``."""

__all__ = [
    "CREDITS",
    "Credit",
    "Decision",
    "Estimator",
    "Floats",
    "Modulator",
    "group_center",
    "grpo",
    "informative",
    "leave_one_out",
    "per_episode",
    "successes",
]
