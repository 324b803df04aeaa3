"""Executors without a model: the oracle, a script, and a recorder that writes demonstrations."""

from __future__ import annotations

from collections.abc import Callable

from hiplan.effects import AskAction, Effects
from hiplan.executors.base import ExecutorProtocol
from hiplan.prompts import FULL, Prompts
from hiplan.trace import Episode


class OracleExecutor:
    """Acts with the environment's oracle for the first ready step, or for the oracle's own plan if there is none."""

    def act(self, episode: Episode, ready: tuple[int, ...]) -> Effects[str]:
        step = episode.plan.step(ready[0]).description if episode.plan and ready else None
        return (yield from AskAction(step)) or ""


class ScriptedExecutor:
    """Acts with a function of the episode and the ready steps."""

    def __init__(self, script: Callable[[Episode, tuple[int, ...]], str]) -> None:
        self._script = script

    def act(self, episode: Episode, ready: tuple[int, ...]) -> Effects[str]:
        return self._script(episode, ready)
        yield


class WrittenExecutor:
    """Records another executor's actions in the conversation as answers to ``prompts``, to make demonstrations."""

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
