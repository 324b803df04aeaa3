"""Build the decisions of an iteration: each sampled answer with its reward and the facts that credit may use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

from hiplan.errors import UserError
from hiplan.named import calling
from hiplan.text import shown
from hiplan.trace import Episode, Role, Segment, StopReason
from hiplan.training.algorithm import Reward
from hiplan.training.collect import Rollout
from hiplan.training.credit import Decision

LIMITS = (StopReason.TURN_LIMIT, StopReason.WINDOW_FULL)


def decisions_of(rollouts: Sequence[Rollout], roles: Sequence[Role], reward: Reward) -> list[Decision]:
    """The decisions of ``roles``, role by role in the order of the episodes; episodes that failed have none."""
    return [
        decision
        for role in roles
        for place, rollout in enumerate(rollouts)
        if rollout.episode.stop is not StopReason.FAULT
        for decision in _episode_decisions(place, rollout, role, reward)
    ]


def _episode_decisions(place: int, rollout: Rollout, role: Role, reward: Reward) -> list[Decision]:
    episode = rollout.episode
    answers = [segment for talk in episode.exchanges(role) for segment in talk.answers()]
    if not answers:
        return []
    with calling("reward function"):
        given = reward(episode, role)
    rewards = rewards_per_answer(given, len(answers), episode, role)
    revisions = [-1, *(p.record.plan.revision if p.record.plan else -1 for p in episode.plan_spans() for _ in p.turns)]
    return [
        Decision(
            episode=place,
            group=rollout.group,
            task=episode.task.id,
            role=role,
            turn=segment.turn,
            kind=segment.kind,
            revision=_revision_in_force(segment, role, revisions),
            state_key=episode.turns[segment.turn - 1].state_key if segment.turn else "",
            reward=value,
            tokens=len(segment.ids),
            surprisal=-math.fsum(segment.logprobs) / len(segment.ids) if segment.ids else 0.0,
            done=number == len(answers),
            truncated=number == len(answers) and episode.stop in LIMITS,
        )
        for number, (segment, value) in enumerate(zip(answers, rewards, strict=True), 1)
    ]


def rewards_per_answer(given: float | Sequence[float], answers: int, episode: Episode, role: Role) -> list[float]:
    """One reward per answer; a single number goes to the last answer. Raises ``UserError`` for anything else."""
    try:
        if isinstance(given, int | float | Real):  # Real: numpy's numbers
            rewards = [*[0.0] * (answers - 1), float(given)]
        else:
            rewards = [float(x) for x in given]
    except (TypeError, ValueError):
        rewards = [math.nan]
    if len(rewards) != answers or not all(map(math.isfinite, rewards)):
        raise UserError(
            f"the reward function returned {shown(given)} for the {role} of {episode.task.id}; expected a finite "
            f"number, or {answers} of them, one per answer"
        )
    return rewards


def _revision_in_force(segment: Segment, role: Role, revisions: Sequence[int]) -> int:
    """The revision in force at the segment's turn, for the executor; the one before that turn, for the planner."""
    place = segment.turn if role == "planner" else segment.turn + 1
    return revisions[min(place, len(revisions) - 1)]
