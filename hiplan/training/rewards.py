"""What each role is rewarded for: sums of terms whose weights a stage sets.

The terms are those of PilotRL's three stages (arXiv 2508.00344, section 4); the paper's own weights are not public, so
the defaults are hiplan's. One number per episode and role.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from hiplan.coordination.adherence import scores
from hiplan.trace import Episode, Role

Guard = Literal["none", "success", "plan", "either"]


class RewardWeights(BaseModel):
    """Weight of each term; every term lies in [0, 1].

    ``outcome``: the environment's reward (both roles). ``format``: share of the role's texts that could be used.
    ``adherence``: share of actions on plan, ``coverage``: share of the plan's steps that were done (executor).
    ``quality``: the judge's mean score of the first plan, scaled to [0, 1] (planner).
    ``guard``: when adherence and coverage count, so that obeying bad plans does not pay: in episodes that succeed
    (``success``), with a first plan that the judge passes (``plan``), in either case, or always (``none``). Revisions
    are not judged again; where the environment cannot judge, no plan passes.
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
    """The role's reward for the episode; the judge's score of the first plan is in the record, where it is needed."""
    total = weights.outcome * episode.reward + weights.format * format_share(episode, role)
    if role == "executor" and (weights.adherence or weights.coverage) and _worth_following(episode, weights):
        found = scores(episode)
        total += weights.adherence * (found.adherence or 0.0) + weights.coverage * (found.coverage or 0.0)
    score = episode.plans[0].score if episode.plans else None
    if role == "planner" and weights.quality and score is not None:
        total += weights.quality * (score.mean - 1) / 4
    return total


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
    """Share of the role's texts that parsed; for the executor, of actions the environment did not refuse."""
    if role == "executor":
        return sum(not turn.refused for turn in episode.turns) / max(1, len(episode.turns))
    conversations = episode.exchanges("planner")
    conversations += [c for candidate in episode.candidates for c in candidate.conversations if c.role == "planner"]
    texts = sum(s.author == "assistant" for c in conversations for s in c.segments)
    return 1 - episode.mistakes.get("planner", 0) / max(1, texts)
