"""An episode as it was at one of its turns: record, tracker and environment, ready to be continued.

The record is cut, the tracker recalls what was judged, and the environment is given the recorded actions again; no
model is asked. ``adaplan`` continues from it, for resuming, for other continuations, and for credit by comparison.
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
    """``episode`` up to a turn, the ``tracker`` of its plan, and the environment in the same state."""

    episode: Episode
    tracker: Tracker
    env: Environment


ENDS = (StopReason.TERMINATED, StopReason.STUCK, StopReason.WINDOW_FULL)
"""After these an episode is over; one that was cancelled, failed or was cut at a limit of turns can be continued."""


def replay(record: Episode, upto: int, env: Environment, revised: bool = True) -> Replayed:
    """Rebuild ``record`` as it was after ``upto`` turns.

    ``revised``: whether the planner has been asked after these turns; False gives the state in which it is asked (or,
    with ``upto`` 0, writes the first plan). ``env``: built for the record's task; it is reset here.
    Raises ``ConfigError`` for a turn that the record does not have, ``EnvironmentFault`` where the environment answers
    otherwise than it did.
    """
    if not 0 <= upto <= len(record.turns):
        raise ConfigError(f"the episode has {len(record.turns)} turns; it cannot be replayed up to turn {upto}")
    observation = printable(env.reset(record.task))
    if observation != record.observation:
        raise EnvironmentFault(f"reset gave {observation[:80]!r} where the record has {record.observation[:80]!r}")
    for turn in record.turns[:upto]:
        _again(turn, env.step(turn.action))
    episode = cut(record, upto, revised)
    tracker = Tracker(None)
    for phase in episode.phases():
        tracker.revise(phase.record)
        for turn in phase.turns:
            tracker.recall(turn)
    return Replayed(episode, tracker, env)


def cut(record: Episode, upto: int, revised: bool = True) -> Episode:
    """A copy of the record's first ``upto`` turns; the conversations are copies that can be continued."""
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
            f"turn {turn.index} ({turn.action[:80]!r}) gave {observation[:80]!r}, reward {result.reward}, where the "
            f"record has {turn.observation[:80]!r}, reward {turn.reward}; the task or the environment has changed"
        )
