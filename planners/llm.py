"""The language-model planner of AdaPlan (PilotRL, arXiv 2508.00344): writes the global plan and revises it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hiplan.effects import Effects, generate
from hiplan.errors import PlanFormatError
from hiplan.plan import Plan, PlanRevision, ReplanReason
from hiplan.prompts import FULL, Prompts, parse_revision
from hiplan.trace import Episode, Kind


class Planner:
    """Plans with the model that the driver uses for the role ``planner``.

    If a text does not parse, the model is told what to fix, at most ``retries`` times; then the episode continues
    without a new plan, and the record has the error. If the context window is full at a revision, the conversation
    restarts from the task, the current plan and the last turns.
    """

    def __init__(self, prompts: Prompts = FULL, retries: int = 1) -> None:
        self.prompts = prompts
        self.retries = retries

    def plan(self, episode: Episode) -> Effects[PlanRevision]:
        conversation = episode.conversation("planner")
        conversation.ask(self.prompts.planner_system, 0, author="system")
        conversation.ask(self.prompts.plan(episode), 0)
        return (yield from self._write(episode, "plan", self.prompts.format.parse))

    def revise(self, episode: Episode, reason: ReplanReason, done: tuple[int, ...]) -> Effects[PlanRevision]:
        conversation = episode.conversation("planner")
        asked = self.prompts.revise(episode, reason, done)
        conversation.ask(asked, len(episode.turns))
        read = partial(parse_revision, read=self.prompts.format.parse)
        again = f"{self.prompts.resume(episode)}\n\n{asked}"
        return (yield from self._write(episode, "revision", read, again))

    def _write(
        self, episode: Episode, kind: Kind, read: Callable[[str], Plan | None], again: str = ""
    ) -> Effects[PlanRevision]:
        """Ask, and retry if the text does not parse. ``again``: the prompt of a restarted conversation."""
        conversation, turn, message = episode.conversation("planner"), len(episode.turns), ""
        for attempt in range(1 + self.retries):
            if attempt:
                conversation.ask(self.prompts.retry(message), turn)
            done = yield from generate(conversation, kind, turn)
            if done.finish == "window" and again:
                conversation = episode.restart("planner")
                conversation.ask(self.prompts.planner_system, turn, author="system")
                conversation.ask(again, turn)
                again = ""
                done = yield from generate(conversation, kind, turn)
            try:
                return PlanRevision(plan=read(done.text))
            except PlanFormatError as error:
                message = str(error)
                conversation.refuse(message)
            if done.finish == "window":
                break
        return PlanRevision(plan=None, reason=message)
