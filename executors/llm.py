"""The language-model executor: sees the task, the plan and each observation, and writes one action."""

from __future__ import annotations

from hiplan.effects import Effects, answered
from hiplan.errors import ActionFormatError
from hiplan.prompts import FULL, Prompts
from hiplan.trace import Episode


class Executor:
    """Acts with the model the driver holds for the role ``executor``.

    A text without an action is passed on as it is: the environment refuses it and says so. When the window is full
    the conversation begins anew with the task, the plan in force and the last turns.
    """

    def __init__(self, prompts: Prompts = FULL) -> None:
        self.prompts = prompts

    def act(self, episode: Episode, ready: tuple[int, ...]) -> Effects[str]:
        conversation, turn = episode.conversation("executor"), len(episode.turns)
        if not conversation.segments:
            conversation.ask(self.prompts.executor_system, turn, author="system")
        conversation.ask(self.prompts.act(episode), turn)
        done = yield from answered(conversation, "action", turn)
        if done.finish == "window" and turn > 0:
            conversation = episode.restart("executor")
            conversation.ask(self.prompts.executor_system, turn, author="system")
            conversation.ask(self.prompts.resume(episode), turn)
            done = yield from answered(conversation, "action", turn)
        try:
            return self.prompts.parse_action(done.text)
        except ActionFormatError as error:
            conversation.refuse(str(error))
            return str(done.text).strip()
