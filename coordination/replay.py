"""Rebuild a recorded episode at one of its turns: record, tracker and environment, ready to be continued.

The record is cut, the tracker applies the recorded judgements, and the environment executes the recorded actions; no
model is called. ``adaplan`` can continue from there, to resume the episode or to compare other continuations.
"""

from __future__ import annotations

from dataclasses import dataclass

from hiplan.coordination.adherence import Tracker
from hiplan.env import Environment
from hiplan.errors import ConfigError, EnvironmentFault
from hiplan.task import StepResult
from hiplan.trace import ROLES, Conversation, Episode, Role, StopReason, Turn, printable


@dataclass(frozen=True)
class Replayed:
    """``episode`` up to a turn, with the ``tracker`` and the environment in the state after that turn."""

    episode: Episode
    tracker: Tracker
    env: Environment


ENDS = (StopReason.TERMINATED, StopReason.STUCK, StopReason.WINDOW_FULL)
"""Stop reasons that end an episode for good; after a cancellation, a fault or the turn limit it can be continued."""


def replay(record: Episode, upto: int, env: Environment, revised: bool = True) -> Replayed:
    """Rebuild ``record`` as it was after ``upto`` turns.

    ``env``: an environment for the record's task; it is reset here. ``revised``: True for the state after any revision
    at that point, False for the state before it; with ``upto=0``, after or before the first plan.

    Raises ``ConfigError`` if the record has fewer turns, and ``EnvironmentFault`` if the environment's answers differ
    from the record.
    """
    if not 0 <= upto <= len(record.turns):
        raise ConfigError(f"upto must be between 0 and the episode's {len(record.turns)} turns, got {upto!r}")
    observation = printable(env.reset(record.task))
    if observation != record.observation:
        raise EnvironmentFault(
            f"reset returned {observation[:80]!r}, but the record has {record.observation[:80]!r}; the task or the "
            "environment has changed"
        )
    for turn in record.turns[:upto]:
        _again(turn, env.step(turn.action))
    episode = cut(record, upto, revised)
    tracker = Tracker(None)
    for span in episode.plan_spans():
        tracker.revise(span.record)
        for turn in span.turns:
            tracker.restore(turn)
    return Replayed(episode, tracker, env)


def cut(record: Episode, upto: int, revised: bool = True) -> Episode:
    """A copy of the record's first ``upto`` turns, whose conversations can be continued."""
    last: dict[Role, int] = {"planner": upto if revised else upto - 1, "executor": upto - 1}
    episode = Episode(record.task, record.observation)
    episode.turns = record.turns[:upto]
    episode.stop = record.stop if upto == len(record.turns) and record.stop in ENDS else None
    episode.plans = [plan for plan in record.plans if plan.turn <= last["planner"]]
    episode.candidates = list(record.candidates) if episode.plans else []
    for role in ROLES:
        for talk in record.exchanges(role):
            if kept := [segment for segment in talk.segments if segment.turn <= last[role]]:
                if role in episode.conversations:
                    episode.past.append(episode.conversations[role])
                episode.conversations[role] = Conversation(role, kept)
    return episode


def _again(turn: Turn, result: StepResult) -> None:
    observation = printable(result.observation)
    now = (observation, result.reward, result.refused)
    if now != (turn.observation, turn.reward, turn.refused):
        raise EnvironmentFault(
            f"turn {turn.index} ({turn.action[:80]!r}) returned {observation[:80]!r} with reward {result.reward}, but "
            f"the record has {turn.observation[:80]!r} with reward {turn.reward}; the task or environment has changed"
        )
