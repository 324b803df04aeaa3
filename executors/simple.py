"""Executors without a model: the environment's oracle, a script; and one that writes another's actions down."""

from __future__ import annotations

from collections.abc import Callable

from hiplan.effects import AskAction, Effects
from hiplan.executors.base import ExecutorProtocol
from hiplan.prompts import FULL, Prompts
from hiplan.trace import Episode


class OracleExecutor:
    """Does what serves the first ready step of the plan, or the oracle's own next action without one."""

    def act(self, episode: Episode, ready: tuple[int, ...]) -> Effects[str]:
        step = episode.plan.step(ready[0]).description if episode.plan and ready else None
        return (yield from AskAction(step)) or ""


class ScriptedExecutor:
    """Acts by a function of the episode and the ready steps."""

    def __init__(self, script: Callable[[Episode, tuple[int, ...]], str]) -> None:
        self._script = script

    def act(self, episode: Episode, ready: tuple[int, ...]) -> Effects[str]:
        return self._script(episode, ready)
        yield


class WrittenExecutor:
    """Another executor's actions, written into the conversation as a model with ``prompts`` would: demonstrations."""

    def __init__(self, executor: ExecutorProtocol, prompts: Prompts = FULL) -> None:
        self._executor, self.prompts = executor, prompts

    def act(self, episode: Episode, ready: tuple[int, ...]) -> Effects[str]:
        action = yield from self._executor.act(episode, ready)
        turn, conversation = len(episode.turns), episode.conversation("executor")
        if not conversation.segments:
            conversation.ask(self.prompts.executor_system, turn, author="system")
        conversation.ask(self.prompts.act(episode), turn)
        conversation.answer(self.prompts.render_action(action), "action", turn)
        return action
