"""A training algorithm consists of six replaceable functions.

    collect -> reward -> credit -> modulators -> loss, and the schedule that orders the roles' updates

A config selects them by name (``train.algorithm.credit=loo``, ``train.algorithm.reward=mine.py:reward``); in Python,
pass an ``Algorithm``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hiplan.errors import ConfigError, UserError
from hiplan.named import T, calling, named
from hiplan.text import shown
from hiplan.trace import Episode, Role
from hiplan.training.collect import Collect, once, refill
from hiplan.training.config import AlgorithmConfig
from hiplan.training.credit import CREDITS, Credit, Decision, Floats, Modulator
from hiplan.training.losses import LOSSES, Loss

Reward = Callable[[Episode, Role], float | Sequence[float]]
"""A role's reward for an episode: one number for the whole episode, or one per answer of the role, in order."""


class Updates(Protocol):
    """The argument of a schedule."""

    roles: tuple[Role, ...]

    def update(self, role: Role) -> None:
        """Update the role's weights on its rows."""
        ...


Schedule = Callable[[Updates], None]
"""Updates the trained roles in some order."""


def in_turn(updates: Updates) -> None:
    """Update each role once, in the stage's order."""
    for role in updates.roles:
        updates.update(role)


def success(episode: Episode, role: Role) -> float:
    """Reward 1 for a solved task, else 0."""
    return float(episode.success)


@dataclass(frozen=True)
class Algorithm:
    """The six functions; the defaults are role-wise GRPO.

    ``reward=None`` uses the stage's ``rewards``. ``loss=None`` is PPO-clip with the ranges of the config.
    ``drop_zero`` leaves rows without any advantage out of updates. By default their tokens count in the denominator of
    the loss and in the KL term, as in TRL and verl.
    """

    collect: Collect = refill
    reward: Reward | None = None
    credit: Credit = CREDITS["grpo"]
    modulators: tuple[Modulator, ...] = ()
    loss: Loss | None = None
    schedule: Schedule = in_turn
    drop_zero: bool = False


COLLECTS: Mapping[str, Collect] = {"once": once, "refill": refill}
REWARDS: Mapping[str, Reward | None] = {"stage": None, "success": success}
SCHEDULES: Mapping[str, Schedule] = {"in_turn": in_turn}
MODULATORS: Mapping[str, Modulator] = {}


def build(config: AlgorithmConfig) -> Algorithm:
    """The functions that a config names. Raises ``ConfigError`` for an unknown name and for what is not a function."""
    return Algorithm(
        _function(config.collect, COLLECTS, "collect function"),
        _function(config.reward, REWARDS, "reward function"),
        _function(config.credit, CREDITS, "credit function"),
        tuple(_function(name, MODULATORS, "modulator") for name in config.modulators),
        _function(config.loss, LOSSES, "loss"),
        _function(config.schedule, SCHEDULES, "schedule"),
        config.drop_zero,
    )


def _function(name: str, known: Mapping[str, T], what: str) -> T:
    found = named(name, known, what)
    if name not in known and not callable(found):
        raise ConfigError(f"{name!r} is a {type(found).__name__}; expected a {what}")
    return found


def advantages_of(algorithm: Algorithm, decisions: Sequence[Decision]) -> Floats:
    """Apply credit and modulators; returns one advantage per decision, (N,). Raises ``UserError`` for other results."""
    with calling("credit function"):
        given = algorithm.credit(decisions)
    advantages = _one_each("credit function", given, len(decisions))
    for modulate in algorithm.modulators:
        with calling("modulator"):
            given = modulate(decisions, advantages)
        advantages = _one_each("modulator", given, len(decisions))
    return advantages


def _one_each(what: str, given: object, count: int) -> Floats:
    try:
        found = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.empty(())
    if found.shape != (count,) or not np.isfinite(found).all():
        raise UserError(f"the {what} returned {shown(given)}; expected {count} finite numbers, one per decision")
    return found
