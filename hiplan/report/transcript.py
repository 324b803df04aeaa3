"""The transcript of an episode: task, plan, turns with verdicts and evidence, and revisions with their changes.

``blocks`` makes the transcript as styled pieces of text, which the terminal and the HTML page render. Texts of models
and environments are untrusted: control characters are removed, a bar marks every line so that it cannot be mistaken for
a line of the report, and no markup parser reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from rich.console import Console
from rich.text import Text

from hiplan.coordination import Scores, scores
from hiplan.coordination.states import step_states
from hiplan.plan import Plan, PlanStep, ReplanKind, ReplanReason, StepStatus, diff
from hiplan.text import clean, shorten
from hiplan.trace import Episode, PlanRecord, Segment, Turn, Verdict

Style = Literal["plain", "strong", "dim", "action", "good", "warn", "bad", "new"]
Piece = tuple[str, Style]
BlockKind = Literal["task", "plan", "turn", "revision", "end"]

RICH_STYLES: dict[Style, str] = {
    "plain": "",
    "strong": "bold",
    "dim": "dim",
    "action": "bold cyan",
    "good": "green",
    "warn": "yellow",
    "bad": "bold red",
    "new": "bold blue",
}
HEADS: dict[BlockKind, str] = {"task": "bold", "plan": "bold magenta", "turn": "dim", "end": "bold"}
HEADS["revision"] = HEADS["plan"]
VERDICTS: dict[Verdict, Style] = {
    Verdict.ON_PLAN: "good",
    Verdict.PREMATURE: "warn",
    Verdict.REPEATED: "warn",
    Verdict.OFF_PLAN: "bad",
    Verdict.UNPLANNED_RECOVERY: "warn",
}
REASONS: dict[ReplanKind, str] = {
    ReplanKind.STEP_FAILED: "{step} failed",
    ReplanKind.CONTRADICTED: "{step} cannot succeed as written",
    ReplanKind.STUCK: "the last actions had no effect",
    ReplanKind.USED_UP: "every step is done but the task is not",
    ReplanKind.OFF_PLAN: "the last actions served no step",
    ReplanKind.NO_PROGRESS: "the last actions completed no step",
    ReplanKind.SCHEDULED: "this is a scheduled check",
}


@dataclass(frozen=True)
class Line:
    """Pieces of text on one line; ``quote``: written by a model or an environment."""

    pieces: tuple[Piece, ...]
    quote: bool = False


@dataclass
class Block:
    """One part of the transcript: a head (``title``, then ``about``) and the lines below it."""

    kind: BlockKind
    title: str
    about: tuple[Piece, ...] = ()
    lines: list[Line] = field(default_factory=list)

    def add(self, *pieces: Piece) -> None:
        """Add a line of the report."""
        self.lines.append(Line(pieces))

    def quote(self, text: str, style: Style = "plain") -> None:
        """Add untrusted text, line by line."""
        self.lines += [Line(((clean(line), style),), quote=True) for line in text.splitlines()]


def transcript(episode: Episode) -> str:
    """The episode as plain text."""
    return "\n".join(prefix + text.plain for prefix, _, text in _rows(episode)) + "\n"


def print_transcript(episode: Episode, console: Console) -> None:
    """Print the episode in colour, wrapped to the width of the console."""
    for first, rest, text in _rows(episode):
        wrapped = text.wrap(console, max(20, console.width - len(rest)))
        for number, line in enumerate(wrapped or [Text()]):
            line.rstrip()
            console.print(Text.assemble((rest if number else first, "dim"), line), soft_wrap=True)


def blocks(episode: Episode) -> list[Block]:
    """The parts of the transcript, in order."""
    states = step_states(episode)
    parts = [_task(episode)]
    for index, record in enumerate(episode.plans):
        parts.append(_plan(episode, record) if index == 0 else _revision(episode, index, states[index - 1]))
        following = episode.plans[index + 1].turn if index + 1 < len(episode.plans) else None
        parts += [_turn(episode, turn, record.plan) for turn in episode.turns[record.turn : following]]
    if not episode.plans:
        parts += [_turn(episode, turn, None) for turn in episode.turns]
    return [*parts, _end(episode)]


def title(episode: Episode) -> str:
    """A short title: the goal if the plan or the observation states one, else the task's id."""
    goals = [record.plan.goal for record in episode.plans if record.plan and record.plan.goal]
    stated = [line[5:].strip(" .") for line in episode.observation.splitlines() if line.lower().startswith("goal:")]
    return clean([*goals, *stated, episode.task.id][0])


def score_rows(found: Scores) -> list[tuple[str, str, str]]:
    """(name, value, explanation) of the scores that are defined; some need a plan, actions under it, or revisions."""
    rows: list[tuple[str, str, str]] = []
    if found.adherence is not None:
        on_plan = found.verdicts[Verdict.ON_PLAN]
        rows.append(("adherence", f"{found.adherence:.0%}", f"{on_plan} of {_count(found.actions, 'action')} on plan"))
    if found.plan is not None and found.coverage is not None:
        steps = _count(len(found.plan.steps), "step")
        rows.append(("coverage", f"{found.coverage:.0%}", f"{len(found.done)} of {steps} of the last plan done"))
    if found.actions:
        rows.append(("order violations", str(found.violations), "premature actions"))
        rows.append(("drift", str(found.drift), "longest run of actions off plan"))
    if found.stability is not None:
        rows.append(("stability", f"{found.stability:.1f}", "edits per revision; 0 is the most stable"))
    return rows


def _task(episode: Episode) -> Block:
    name, task_id = title(episode), clean(episode.task.id)
    block = Block("task", "Task", ((name, "strong"), (f"  {task_id}" if name != task_id else "", "dim")))
    block.quote(episode.observation)
    return block


def _plan(episode: Episode, record: PlanRecord) -> Block:
    block = Block("plan", "Plan")
    _parse_errors(block, episode, record)
    if record.plan is None:
        block.about = (("none; the episode continues without a plan", "dim"),)
        return block
    if len(episode.candidates) > 1:
        scores = ["not scored" if c.score is None else f"{c.score:.2g}" for c in episode.candidates]
        place = next((i for i, c in enumerate(episode.candidates, 1) if c.chosen), 0)
        block.add((f"candidate {place} of {len(scores)}; scores: {', '.join(scores)}", "dim"))
    block.quote(record.plan.rationale, "dim")
    for step in record.plan.steps:
        block.add(*_step(step))
    return block


def _revision(episode: Episode, index: int, before: Mapping[int, StepStatus]) -> Block:
    record, last = episode.plans[index], episode.plans[index - 1].plan
    number = replace(episode, plans=episode.plans[: index + 1]).revisions()
    name = "Plan kept" if record.kept else f"Revision {number}"
    why = _because(record.reason, last)
    block = Block("revision", name, ((f"after turn {record.turn}  because ", "dim"), (why, "warn")))
    _parse_errors(block, episode, record)
    if record.plan is None or last is None or record.kept:
        return block
    change = diff(last, record.plan, {i for i, status in before.items() if status is StepStatus.DONE})
    block.quote(record.plan.rationale, "dim")
    groups = ("added", "reworded", "rewired", "moved", "kept", "dropped", "done")
    parts = [f"{what} {', '.join(map(str, ids))}" for what in groups if (ids := getattr(change, what))]
    block.add(("; ".join(parts) if change.distance or change.done else "the same steps again", "dim"))
    for step in record.plan.steps:
        if step.id in change.added:
            block.add(("+ ", "new"), *_step(step, "new"))
        elif step.id in change.reworded:
            block.add(("~ ", "new"), *_step(step, "new"))
            block.add((f"    was: {clean(last.step(step.id).description)}", "dim"))
        else:
            done = before.get(step.id) is StepStatus.DONE
            block.add(("✓ " if done else "  ", "good"), *_step(step))
    for step in map(last.step, change.dropped):
        failed = before.get(step.id) is StepStatus.FAILED
        block.add(("− ", "bad"), *_step(step, "dim"), ("  failed" if failed else "", "bad"))
    return block


def _turn(episode: Episode, turn: Turn, plan: Plan | None) -> Block:
    block = Block("turn", f"Turn {turn.index + 1}", ((clean(turn.action) or "(nothing)", "action"),))
    for segment in _written(episode, "executor", turn.index)[-1:]:  # the text before the action
        *thought, last = segment.text.strip().splitlines() or [""]
        block.quote("\n".join(thought if last.strip() == turn.action.strip() else [*thought, last]), "dim")
    said: list[Piece] = []
    if turn.verdict is not None:
        said.append((str(turn.verdict), VERDICTS[turn.verdict]))
        if turn.evidence:
            said.append((f" ({shorten(turn.evidence)})", "dim"))
        if turn.step is not None:
            said.append((f" · step {_named(plan, turn.step)}", "dim"))
        if turn.done:
            said.append((f" · done {', '.join(map(str, turn.done))}", "good"))
        if turn.failed:
            said.append((f" · failed {', '.join(map(str, turn.failed))}", "bad"))
    if turn.refused:
        said.append((" · refused" if said else "refused", "bad"))
    if turn.reward:
        said.append((f"{' · ' if said else ''}reward {turn.reward:+g}", "good" if turn.reward > 0 else "bad"))
    if said:
        block.add(*said)
    block.quote(turn.observation)
    return block


def _end(episode: Episode) -> Block:
    outcome: Piece = ("success", "good") if episode.success else ("no success", "bad")
    stop = str(episode.stop) if episode.stop else "not finished"
    block = Block("end", "End", (outcome, (f"  {stop} after {_count(len(episode.turns), 'turn')}", "plain")))
    block.add((f"reward {episode.reward:g}; {_count(episode.revisions(), 'revision')}", "dim"))
    for name, value, meaning in score_rows(scores(episode)):
        block.add((f"{name} {value}", "plain"), (f"  {meaning}", "dim"))
    for role, count in episode.mistakes.items():
        if count:
            block.add((f"{role}: {_count(count, 'text')} that did not parse", "warn"))
    block.quote(episode.error, "bad")
    return block


def _parse_errors(block: Block, episode: Episode, record: PlanRecord) -> None:
    """Add the planner's texts for this record that did not parse, and the error."""
    segments = _written(episode, "planner", record.turn)
    for number, segment in enumerate(segments if record.error else segments[:-1]):
        block.add((f"attempt {number + 1} did not parse:", "bad"))
        block.quote(segment.text, "dim")
    if record.error:
        block.add((clean(record.error), "bad"))


def _written(episode: Episode, role: Literal["planner", "executor"], turn: int) -> list[Segment]:
    segments = [segment for conversation in episode.exchanges(role) for segment in conversation.segments]
    return [s for s in segments if s.author == "assistant" and s.turn == turn]


def _step(step: PlanStep, style: Style = "plain") -> tuple[Piece, ...]:
    after = f"  after {', '.join(map(str, step.after))}" if step.after else ""
    return ((f"{step.id}. {clean(step.description)}", style), (after, "dim"))


def _named(plan: Plan | None, step_id: int) -> str:
    words = [clean(step.description) for step in plan.steps if step.id == step_id] if plan else []
    return f"{step_id} ({words[0]})" if words else str(step_id)


def _because(reason: ReplanReason | None, plan: Plan | None) -> str:
    if reason is None:
        return "a revision was requested"
    step = f"step {_named(plan, reason.step)}" if reason.step is not None else "a step"
    return REASONS[reason.kind].format(step=step)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _rows(episode: Episode) -> Iterator[tuple[str, str, Text]]:
    """Per line: (prefix, prefix of its wrapped continuation, text)."""
    before: BlockKind = "task"
    for block in blocks(episode):
        if block.kind != "task" and (block.kind, before) != ("turn", "turn"):
            yield "", "", Text()
        before = block.kind
        head = Text.assemble((block.title, HEADS[block.kind]), "  " * bool(block.about), _text(block.about))
        yield "", "        ", head
        for line in block.lines:
            first, rest = ("      │ ", "      │ ") if line.quote else ("      ", "          ")
            yield first, rest, _text(line.pieces)


def _text(pieces: tuple[Piece, ...]) -> Text:
    return Text.assemble(*((text, RICH_STYLES[style]) for text, style in pieces))
