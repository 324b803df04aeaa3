"""What each role is rewarded for: sums of terms whose weights a stage sets.

The terms are those of PilotRL's three stages (arXiv 2508.00344, section 4); the paper's own weights are not public, so
the defaults are hiplan's. One number per episode and role.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from hiplan.coordination import PlanScore
from hiplan.coordination.adherence import adherence
from hiplan.trace import Episode, Role


class RewardWeights(BaseModel):
    """Weight of each term; every term lies in [0, 1].

    ``outcome``: the environment's reward (both roles). ``format``: share of the role's texts that could be used.
    ``adherence``: share of actions on plan (executor). ``quality``: the judge's mean score of the first
    plan, scaled to [0, 1] (planner).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: float = 1.0
    format: float = 0.1
    adherence: float = 0.0
    quality: float = 0.0


def role_reward(episode: Episode, role: Role, weights: RewardWeights, score: PlanScore | None = None) -> float:
    """The role's reward for the episode. ``score``: the judge's of the first plan, if there was one to judge."""
    total = weights.outcome * episode.reward + weights.format * format_share(episode, role)
    if role == "executor" and weights.adherence:
        total += weights.adherence * (adherence(episode) or 0.0)
    if role == "planner" and weights.quality and score is not None:
        total += weights.quality * (score.mean - 1) / 4
    return total


def format_share(episode: Episode, role: Role) -> float:
    """Share of the role's texts that parsed; for the executor, of actions the environment did not refuse."""
    if role == "executor":
        return sum(not turn.refused for turn in episode.turns) / max(1, len(episode.turns))
    planner = episode.conversations.get("planner")
    texts = sum(s.author == "assistant" for s in planner.segments) if planner else 0
    return 1 - episode.mistakes.get("planner", 0) / max(1, texts)
