"""The metrics of an iteration's episodes and decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hiplan.coordination import scores
from hiplan.trace import Episode, Role, StopReason
from hiplan.training.collect import Rollout
from hiplan.training.credit import Decision, informative


def rollout_metrics(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """Means over the episodes with a planner, or over all episodes if none had one; shares are in [0, 1]."""
    episodes = [rollout.episode for rollout in rollouts]
    planned = [rollout.episode for rollout in rollouts if rollout.planned]
    shown = planned or episodes
    followed = [scores(episode) for episode in planned]
    return {
        "success": _mean([e.success for e in shown]) or 0.0,
        "adherence": _mean([s.adherence for s in followed if s.adherence is not None]),
        "coverage": _mean([s.coverage for s in followed if s.coverage is not None]),
        "turns": _mean([len(e.turns) for e in shown]) or 0.0,
        "revisions": _mean([e.revisions() for e in shown]) or 0.0,
        "episodes": len(episodes),
        "faults": sum(e.stop is StopReason.FAULT for e in episodes),
    }


def role_metrics(decisions: Sequence[Decision], role: Role) -> dict[str, Any]:
    """The role's mean reward per episode, its share of groups without reward variance, and its entropy.

    The entropy (nats per token) is estimated by the mean surprisal of all sampled tokens. Tokens without advantage
    count as well, because leaving out episodes would bias the estimate.
    """
    per_episode, groups = episode_rewards(decisions, role)
    if not groups:
        return {}
    flat = 1 - len(informative(per_episode, groups)) / len(set(groups))
    mine = [one for one in decisions if one.role == role]
    entropy = sum(one.surprisal * one.tokens for one in mine) / max(1, sum(one.tokens for one in mine))
    return {
        f"reward_{role}": float(np.mean(per_episode)), f"zero_variance_{role}": flat, f"entropy_{role}": entropy,
    }  # fmt: skip


def episode_rewards(decisions: Sequence[Decision], role: Role) -> tuple[list[float], list[int]]:
    """The role's total reward in each episode with a decision of the role, and the groups of those episodes."""
    found: dict[int, tuple[float, int]] = {}
    for one in decisions:
        if one.role == role:
            found[one.episode] = found.get(one.episode, (0.0, 0))[0] + one.reward, one.group
    return [reward for reward, _ in found.values()], [group for _, group in found.values()]


def plan_kl_episodes(rollouts: Sequence[Rollout], most: int) -> list[Episode]:
    """At most ``most`` episodes of different tasks in which the executor had a plan, for ``plan_kl``."""
    planned = [r.episode for r in rollouts if "executor" in r.episode.conversations and r.episode.plans]
    planned = [e for e in planned if e.plans[0].plan]
    return list({e.task.id: e for e in reversed(planned)}.values())[::-1][:most]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
