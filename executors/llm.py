"""The language-model executor: reads the task, the plan and each observation, and writes one action per turn."""

from __future__ import annotations

from hiplan.effects import Effects, generate
from hiplan.errors import ActionFormatError
from hiplan.prompts import FULL, Prompts
from hiplan.trace import Episode


class Executor:
    """Acts with the model that the driver uses for the role ``executor``.

    A text without an action goes to the environment unchanged, which refuses it. If the context window is full, the
    conversation restarts from the task, the current plan and the last turns.
    """

    def __init__(self, prompts: Prompts = FULL) -> None:
        self.prompts = prompts

    def act(self, episode: Episode, ready: tuple[int, ...]) -> Effects[str]:
        conversation, turn = episode.conversation("executor"), len(episode.turns)
        if not conversation.segments:
            conversation.ask(self.prompts.executor_system, turn, author="system")
        conversation.ask(self.prompts.act(episode), turn)
        done = yield from generate(conversation, "action", turn)
        if done.finish == "window" and turn > 0:
            conversation = episode.restart("executor")
            conversation.ask(self.prompts.executor_system, turn, author="system")
            conversation.ask(self.prompts.resume(episode), turn)
            done = yield from generate(conversation, "action", turn)
        try:
            return self.prompts.parse_action(done.text)
        except ActionFormatError as error:
            conversation.refuse(str(error))
            return str(done.text).strip()
