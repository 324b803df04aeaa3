"""The token-exact record of an episode: ``Conversation``, ``Turn``, ``PlanRecord``, ``Episode``.

Each role has its own append-only conversation. Sampled tokens are stored with their log-probabilities and are never
decoded and encoded again, so a conversation serves as the KV cache's key, the training row and the transcript.
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


# JSON has no NaN and no infinity: they are written as the strings "nan" and "-inf" and read back as numbers.
Figure = Annotated[float, PlainSerializer(lambda value: _figures([value])[0], float | str, when_used="json")]
Figures = Annotated[tuple[float, ...], PlainSerializer(_figures, list[float | str], when_used="json")]


class StopReason(StrEnum):
    """Why an episode ended."""

    TERMINATED = "terminated"  # the environment reported the end of the task
    TURN_LIMIT = "turn limit"
    STUCK = "stuck"  # too many refused actions in a row
    WINDOW_FULL = "window full"
    CANCELLED = "cancelled"
    FAULT = "fault"  # the environment or the model failed; see Episode.error


class Verdict(StrEnum):
    """How an action relates to the plan."""

    ON_PLAN = "on plan"
    PREMATURE = "premature"  # serves a step whose dependencies are not done
    REPEATED = "repeated"  # serves a step that is done already
    OFF_PLAN = "off plan"  # serves no step
    UNPLANNED_RECOVERY = "unplanned recovery"  # serves no step, but had an effect right after a failure


@dataclass(frozen=True)
class Segment:
    """A part of a conversation by one author.

    ``ids``: its tokens, for prompts including the template's delimiters; empty if the model exchanges text.
    ``logprobs``: for sampled segments, one per id, in nats, under the distribution that was sampled. ``turn``: the turn
    it belongs to, from 0. ``finish``: for sampled segments, ``stop``, ``length`` or ``window``. ``trained``: False for
    sampled text that must not carry loss. ``reasoning``: what a reasoning model wrote before ``text``. ``dropped``: how
    many of the first ``ids`` later turns do not see. ``mistake``: why a sampled text could not be used, else empty.
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
    """An append-only conversation with one role; hashed by identity, so that it can be a cache key."""

    role: Role
    segments: list[Segment] = field(default_factory=list)

    def ask(self, text: str, turn: int, author: Author = "user") -> None:
        """Append a prompt; ``answer`` fills in its tokens."""
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
        """Append the role's answer; ``prompt_ids`` are the tokens of all pending prompts."""
        if prompt_ids and self.segments:
            last = self.segments[-1]
            self.segments[-1] = Segment(last.author, last.text, last.kind, last.turn, tuple(prompt_ids))
        self.segments.append(
            Segment(
                "assistant", text, kind, turn, tuple(ids), tuple(logprobs), finish, trained, reasoning, dropped
            )
        )  # fmt: skip

    def answers(self) -> list[Segment]:
        """The role's answers, in order."""
        return [segment for segment in self.segments if segment.author == "assistant"]

    def refuse(self, mistake: str) -> None:
        """Record why the last answer could not be used."""
        self.segments[-1] = replace(self.segments[-1], mistake=mistake)

    def ids(self) -> list[int]:
        """All tokens that the next answer will see, in order."""
        return [token for segment in self.segments for token in segment.ids[segment.dropped :]]


@dataclass(frozen=True)
class PlanRecord:
    """One answer of the planner: the plan in force from ``turn`` on, and the reason for asking.

    ``plan`` is ``None`` if the planner gave no plan, or if no text of it parsed; ``error`` then has the message.
    ``kept``: the planner answered *keep*. ``score``: a judge's score, if one was asked.
    """

    turn: int
    plan: Plan | None
    reason: ReplanReason | None = None
    kept: bool = False
    error: str = ""
    score: PlanScore | None = None


@dataclass(frozen=True)
class PlanSpan:
    """An answer of the planner and the turns from it to the next answer."""

    record: PlanRecord
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Turn:
    """One action and its result.

    ``reward``: the environment's, for this action. ``step``: the plan step that the action served; ``evidence``: the
    matcher's reason. ``done``: the steps that the action completed. ``failed``: the steps with status *failed* after
    it. ``state_key``: the environment's state key as text. ``success``: whether the task is solved, if the environment
    reports it.
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
    """One of several first plans, of which the one with the highest ``score`` was ``chosen``.

    ``score`` is ``None`` if the plan did not parse or repeats an earlier candidate. ``conversations``: those held to
    score it, and the planner's own unless it was chosen, in which case the episode has it. ``turns``: the number of
    actions in rehearsals of it.
    """

    plan: Plan | None
    score: Figure | None = None
    chosen: bool = False
    conversations: list[Conversation] = field(default_factory=list)
    turns: int = 0


@dataclass
class Episode:
    """The record of one episode; the loop appends to it, and all reports read it."""

    task: Task
    observation: str
    conversations: dict[Role, Conversation] = field(default_factory=dict)
    plans: list[PlanRecord] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    stop: StopReason | None = None
    error: str = ""
    past: list[Conversation] = field(default_factory=list)  # conversations that filled their context window
    candidates: list[Candidate] = field(default_factory=list)  # empty unless one of several first plans was chosen

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
        """Whether the task is solved: as the environment reports, else terminated with a total reward of at least 1."""
        said = self.turns[-1].success if self.turns else None
        return said if said is not None else self.stop is StopReason.TERMINATED and self.reward >= 1.0

    @property
    def mistakes(self) -> dict[Role, int]:
        """The number of texts per role that could not be used; roles without any are left out."""
        talks = [*self.past, *self.conversations.values(), *(c for one in self.candidates for c in one.conversations)]
        counts = {role: sum(bool(s.mistake) for c in talks if c.role == role for s in c.segments) for role in ROLES}
        return {role: count for role, count in counts.items() if count}

    def plan_spans(self) -> Iterator[PlanSpan]:
        """The planner's answers in order, each with the turns up to the next answer."""
        ends = [*(record.turn for record in self.plans[1:]), len(self.turns)]
        for record, end in zip(self.plans, ends, strict=False):
            yield PlanSpan(record, tuple(self.turns[record.turn : end]))

    def revisions(self) -> int:
        """The number of changes of the plan; the first plan and answers that kept it do not count."""
        return sum(record.plan is not None and not record.kept for record in self.plans[1:])

    def conversation(self, role: Role) -> Conversation:
        """The role's current conversation; created on first use."""
        return self.conversations.setdefault(role, Conversation(role))

    def restart(self, role: Role) -> Conversation:
        """Start a new conversation with the role; the old one moves to ``past``."""
        self.past.append(self.conversation(role))
        self.conversations[role] = Conversation(role)
        return self.conversations[role]

    def exchanges(self, role: Role) -> list[Conversation]:
        """All conversations with the role, in order; empty if it took no part."""
        now = self.conversations.get(role)
        return [c for c in self.past if c.role == role] + ([now] if now else [])

    def to_json(self) -> str:
        """The episode as one line of JSON."""
        return _adapter().dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> Episode:
        """Parse the output of ``to_json``. Raises pydantic's ``ValidationError`` for other texts."""
        return _adapter().validate_json(text)


@cache
def _adapter() -> TypeAdapter[Episode]:
    return TypeAdapter(Episode)
