"""The stage rewards: for each role a weighted sum of terms, one number per episode.

The terms are those of PilotRL's three stages (arXiv 2508.00344, section 4). The paper's weights are not public; the
defaults are hiplan's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict

from hiplan.coordination.adherence import scores
from hiplan.trace import Episode, Role

Guard = Literal["none", "success", "plan", "either"]


class RewardWeights(BaseModel):
    """The weight of each reward term.

    Both roles: ``outcome``, the environment's total reward; ``format``, the share of the role's texts that could be
    used. Executor: ``adherence``, the share of actions on plan; ``coverage``, the share of done steps of the last plan.
    Planner: ``quality``, the judge's mean score of the first plan. All terms are in [0, 1], ``outcome`` if the
    environment's reward is.

    ``guard`` decides when adherence and coverage count, so that following a bad plan is not rewarded: if the episode
    succeeds (``success``), if the judge passes the first plan (``plan``), in either case (``either``), or always
    (``none``). Revisions are not judged. No plan passes if the judge cannot score it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: float = 1.0
    format: float = 0.1
    adherence: float = 0.0
    coverage: float = 0.0
    quality: float = 0.0
    guard: Guard = "either"

    def judged(self, role: Role) -> bool:
        """Whether the role's reward needs the judge's score of the plan."""
        followed = bool(self.adherence or self.coverage) and self.guard in ("plan", "either")
        return bool(self.quality) if role == "planner" else followed


def role_reward(episode: Episode, role: Role, weights: RewardWeights) -> float:
    """The role's reward for the episode; reads the judge's score of the first plan from the record."""
    total = weights.outcome * episode.reward + weights.format * format_share(episode, role)
    if role == "executor" and (weights.adherence or weights.coverage) and _worth_following(episode, weights):
        found = scores(episode)
        total += weights.adherence * (found.adherence or 0.0) + weights.coverage * (found.coverage or 0.0)
    score = episode.plans[0].score if episode.plans else None
    if role == "planner" and weights.quality and score is not None:
        total += weights.quality * (score.mean - 1) / 4
    return total


def stage_reward(weights: RewardWeights) -> Callable[[Episode, Role], float]:
    """``role_reward`` with the weights of a stage."""
    return lambda episode, role: role_reward(episode, role, weights)


def _worth_following(episode: Episode, weights: RewardWeights) -> bool:
    score = episode.plans[0].score if episode.plans else None
    sound = score is not None and score.passes
    match weights.guard:
        case "none":
            return True
        case "success":
            return episode.success
        case "plan":
            return sound
        case "either":
            return episode.success or sound


def format_share(episode: Episode, role: Role) -> float:
    """The share of the planner's texts that parsed, or of the executor's actions that were not refused."""
    if role == "executor":
        return sum(not turn.refused for turn in episode.turns) / max(1, len(episode.turns))
    conversations = episode.exchanges("planner")
    conversations += [c for candidate in episode.candidates for c in candidate.conversations if c.role == "planner"]
    texts = sum(s.author == "assistant" for c in conversations for s in c.segments)
    return 1 - episode.mistakes.get("planner", 0) / max(1, texts)
