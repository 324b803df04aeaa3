"""Executors without a model: the environment's oracle, and a script."""

from __future__ import annotations

from collections.abc import Callable

from hiplan.requests import Consult, Steps
from hiplan.trace import Episode


class OracleExecutor:
    """Does what serves the first ready step of the plan, or the oracle's own next action without one."""

    def act(self, episode: Episode, ready: tuple[int, ...]) -> Steps[str]:
        step = episode.plan.step(ready[0]).description if episode.plan and ready else None
        answers = yield Consult("oracle_action", ((step,),))
        return str(answers[0]) if answers else ""


class ScriptedExecutor:
    """Acts by a function of the episode and the ready steps."""

    def __init__(self, script: Callable[[Episode, tuple[int, ...]], str]) -> None:
        self._script = script

    def act(self, episode: Episode, ready: tuple[int, ...]) -> Steps[str]:
        return self._script(episode, ready)
        yield
