"""A training algorithm as six functions, each of which a user can replace.

    collect -> reward -> credit -> modulators -> loss, in the order of the schedule

A config names them (``train.algorithm.credit=loo``, ``train.algorithm.reward=mine.py:reward``); Python passes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hiplan.named import named
from hiplan.trace import Episode, Role
from hiplan.training.collect import Collect, once, refill
from hiplan.training.config import AlgorithmConfig
from hiplan.training.credit import CREDITS, Credit, Modulator
from hiplan.training.losses import LOSSES, Loss

Reward = Callable[[Episode, Role], float | Sequence[float]]
"""A role's reward for an episode: a number, or one number per answer of the role, in order."""


class Updates(Protocol):
    """What a schedule is given."""

    roles: tuple[Role, ...]

    def update(self, role: Role) -> None:
        """Update the role's weights by its rows."""
        ...


Schedule = Callable[[Updates], None]
"""Updates the roles that learn, in an order of its own."""


def in_turn(updates: Updates) -> None:
    """One role after the other, in the stage's order."""
    for role in updates.roles:
        updates.update(role)


def success(episode: Episode, role: Role) -> float:
    """1 for a solved task, else 0."""
    return float(episode.success)


@dataclass(frozen=True)
class Algorithm:
    """The six functions; the defaults are role-wise GRPO.

    ``reward``: ``None`` takes the stage's ``rewards``. ``loss``: ``None`` is PPO-clip with the config's ranges.
    ``drop_zero``: leave decisions with advantage 0 out of updates, so that their tokens are neither in the loss's
    denominator nor in the KL term. By default they are, as in TRL and verl.
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
    """The functions that a config names. Raises ``ConfigError`` for a name that leads nowhere."""
    return Algorithm(
        named(config.collect, COLLECTS, "collect function"),
        named(config.reward, REWARDS, "reward function"),
        named(config.credit, CREDITS, "credit function"),
        tuple(named(name, MODULATORS, "modulator") for name in config.modulators),
        named(config.loss, LOSSES, "loss"),
        named(config.schedule, SCHEDULES, "schedule"),
        config.drop_zero,
    )
