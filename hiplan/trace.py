"""What happened, token-exact: ``Conversation``, ``Turn``, ``PlanRecord``, ``Episode``.

Each role has a conversation of its own that only grows. Sampled tokens are kept with their
log-probabilities and never decoded and encoded again, so a conversation is at once the KV cache's
key, the training row and the transcript.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from math import isfinite
from typing import Annotated, Literal

from pydantic import PlainSerializer, TypeAdapter

from hiplan.plan import Plan, PlanScore, ReplanReason
from hiplan.task import Task
from hiplan.text import printable as printable  # imported from here as well

Role = Literal["planner", "executor"]
ROLES: tuple[Role, Role] = ("planner", "executor")
Author = Literal["system", "user", "assistant"]
Kind = Literal["prompt", "plan", "revision", "action"]


def _figures(values: Sequence[float]) -> list[float | str]:
    return [value if isfinite(value) else str(value) for value in values]


# JSON has no word for what is not finite: it is written as the text "nan" or "-inf", which is read back as the number.
Figure = Annotated[float, PlainSerializer(lambda value: _figures([value])[0], float | str, when_used="json")]
Figures = Annotated[tuple[float, ...], PlainSerializer(_figures, list[float | str], when_used="json")]


class StopReason(StrEnum):
    """Why an episode ended."""

    TERMINATED = "terminated"  # the environment said that the task ended
    TURN_LIMIT = "turn limit"
    STUCK = "stuck"  # too many refused actions in a row
    WINDOW_FULL = "window full"
    CANCELLED = "cancelled"
    FAULT = "fault"  # the engine or the model failed; see Episode.error


class Verdict(StrEnum):
    """How an action stands to the plan."""

    ON_PLAN = "on plan"
    PREMATURE = "premature"  # serves a step whose dependencies are not done
    REPEATED = "repeated"  # serves a step that is done already
    OFF_PLAN = "off plan"  # serves no step
    UNPLANNED_RECOVERY = "unplanned recovery"  # serves no step, but had an effect right after something had failed


@dataclass(frozen=True)
class Segment:
    """One stretch of a conversation by one author.

    ``ids``: its tokens, with the template's delimiters for prompts; empty where a model works on text.
    ``logprobs``: one per id for sampled segments, of the distribution that was sampled. ``turn``: the
    turn it belongs to, counted from 0. ``finish``: ``stop`` or ``length`` for sampled segments.
    ``trained``: False for sampled text that must carry no loss. ``reasoning``: what a thinking model wrote before
    ``text``. ``dropped``: how many of ``ids``, counted from the first, later turns no longer see. ``mistake``: why a
    sampled text could not be used; empty where it could.
    """

    author: Author
    text: str
    kind: Kind
    turn: int
    ids: tuple[int, ...] = ()
    logprobs: Figures = ()
    finish: str = ""
    trained: bool = True
    reasoning: str = ""
    dropped: int = 0
    mistake: str = ""


@dataclass(eq=False)
class Conversation:
    """An append-only exchange with one role; compared by identity, so it can key a cache."""

    role: Role
    segments: list[Segment] = field(default_factory=list)

    def ask(self, text: str, turn: int, author: Author = "user") -> None:
        """Append a prompt; its tokens are filled in with the answer."""
        self.segments.append(Segment(author, text, "prompt", turn))

    def pending(self) -> list[Segment]:
        """The prompts since the last sampled segment."""
        last = max((i for i, s in enumerate(self.segments) if s.author == "assistant"), default=-1)
        return self.segments[last + 1 :]

    def answer(
        self,
        text: str,
        kind: Kind,
        turn: int,
        *,
        prompt_ids: Sequence[int] = (),
        ids: Sequence[int] = (),
        logprobs: Sequence[float] = (),
        finish: str = "stop",
        trained: bool = True,
        reasoning: str = "",
        dropped: int = 0,
    ) -> None:
        """Append what the role wrote; ``prompt_ids`` are the tokens of all pending prompts."""
        if prompt_ids and self.segments:
            last = self.segments[-1]
            self.segments[-1] = Segment(last.author, last.text, last.kind, last.turn, tuple(prompt_ids))
        self.segments.append(
            Segment(
                "assistant", text, kind, turn, tuple(ids), tuple(logprobs), finish, trained, reasoning, dropped
            )
        )  # fmt: skip

    def answers(self) -> list[Segment]:
        """What the role wrote, in order."""
        return [segment for segment in self.segments if segment.author == "assistant"]

    def refuse(self, mistake: str) -> None:
        """Note that the last answer could not be used, and why."""
        self.segments[-1] = replace(self.segments[-1], mistake=mistake)

    def ids(self) -> list[int]:
        """All tokens that the next answer will see, in order."""
        return [token for segment in self.segments for token in segment.ids[segment.dropped :]]


@dataclass(frozen=True)
class PlanRecord:
    """The plan in force from ``turn`` on, and why it was asked for.

    ``plan`` is None when there is none (the ``none`` planner, or a text that never parsed; then
    ``error`` says so). ``kept``: the planner answered *keep*. ``score``: a judge's, where one was asked.
    """

    turn: int
    plan: Plan | None
    reason: ReplanReason | None = None
    kept: bool = False
    error: str = ""
    score: PlanScore | None = None


@dataclass(frozen=True)
class Phase:
    """A planner's answer and the turns taken under it, up to the next answer."""

    record: PlanRecord
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Turn:
    """One action and what came of it.

    ``step``: the plan step it served; ``evidence``: why the coordination layer thinks so. ``done``: the steps this
    action completed; ``failed``: those that were failed after it. ``state_key``: its text form. ``success``: whether
    the task is solved, where the environment says so.
    """

    index: int
    action: str
    observation: str
    reward: Figure
    refused: bool
    verdict: Verdict | None = None
    step: int | None = None
    state_key: str = ""
    evidence: str = ""
    done: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    success: bool | None = None


@dataclass
class Candidate:
    """A first plan that stood for choice before the first action; of those with a ``score`` the highest was taken.

    ``conversations``: what was written to weigh it, and its own planner's unless it was ``chosen`` (that one is the
    episode's). ``turns``: actions in rehearsals of it.
    """

    plan: Plan | None
    score: Figure | None = None
    chosen: bool = False
    conversations: list[Conversation] = field(default_factory=list)
    turns: int = 0


@dataclass
class Episode:
    """The record of one episode; the loop appends to it and every report is made from it."""

    task: Task
    observation: str
    conversations: dict[Role, Conversation] = field(default_factory=dict)
    plans: list[PlanRecord] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    stop: StopReason | None = None
    error: str = ""
    past: list[Conversation] = field(default_factory=list)  # conversations that filled their window
    candidates: list[Candidate] = field(default_factory=list)  # first plans, where one of several was taken

    @property
    def plan(self) -> Plan | None:
        """The plan in force."""
        return self.plans[-1].plan if self.plans else None

    @property
    def reward(self) -> float:
        """The environment's total reward."""
        return sum(turn.reward for turn in self.turns)

    @property
    def success(self) -> bool:
        """Whether the task was solved: as the environment said, else whether it ended with a total reward of 1."""
        said = self.turns[-1].success if self.turns else None
        return said if said is not None else self.stop is StopReason.TERMINATED and self.reward >= 1.0

    @property
    def mistakes(self) -> dict[Role, int]:
        """How many texts of each role could not be used; roles without any are left out."""
        talks = [*self.past, *self.conversations.values(), *(c for one in self.candidates for c in one.conversations)]
        counts = {role: sum(bool(s.mistake) for c in talks if c.role == role for s in c.segments) for role in ROLES}
        return {role: count for role, count in counts.items() if count}

    def phases(self) -> Iterator[Phase]:
        """The planner's answers in order, each with the turns taken under it."""
        ends = [*(record.turn for record in self.plans[1:]), len(self.turns)]
        for record, end in zip(self.plans, ends, strict=False):
            yield Phase(record, tuple(self.turns[record.turn : end]))

    def revisions(self) -> int:
        """How often the plan was changed; answers that kept it and the first plan do not count."""
        return sum(record.plan is not None and not record.kept for record in self.plans[1:])

    def conversation(self, role: Role) -> Conversation:
        """The role's conversation, begun on first use."""
        return self.conversations.setdefault(role, Conversation(role))

    def restart(self, role: Role) -> Conversation:
        """Begin the role's conversation anew; the old one is kept as it is."""
        self.past.append(self.conversation(role))
        self.conversations[role] = Conversation(role)
        return self.conversations[role]

    def exchanges(self, role: Role) -> list[Conversation]:
        """All conversations with the role, in order; none where it took no part."""
        now = self.conversations.get(role)
        return [c for c in self.past if c.role == role] + ([now] if now else [])

    def to_json(self) -> str:
        """One line of JSON; ``from_json`` gives the same episode back."""
        return _adapter().dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> Episode:
        """Read what ``to_json`` wrote; pydantic's ``ValidationError`` where it is not that."""
        return _adapter().validate_json(text)


@cache
def _adapter() -> TypeAdapter[Episode]:
    return TypeAdapter(Episode)
