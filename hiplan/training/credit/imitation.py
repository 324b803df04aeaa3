"""Credit for imitating successful episodes, a supervised baseline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hiplan.training.credit.center import Floats
from hiplan.training.credit.decision import Decision


def successes(decisions: Sequence[Decision]) -> Floats:
    """Advantage 1 for the decisions of episodes in which the role's total reward is at least 1, else 0.

    With the reward ``success`` and the loss ``likelihood`` this is rejection-sampling fine-tuning.
    """
    totals: dict[tuple[int, str], float] = {}
    for one in decisions:
        totals[one.episode, one.role] = totals.get((one.episode, one.role), 0.0) + one.reward
    return np.array([float(totals[one.episode, one.role] >= 1.0) for one in decisions], dtype=np.float64)
