"""The prompts of both roles and the parsers of their answers, as plain functions that can be replaced one by one.

``FULL`` is for general instruction models. It quotes every line of an observation (``|``) and of an action (``>``), so
no observation can produce the prompt of another plan or of other turns.

``BRIEF`` is the short form for the shipped small model, whose context window is short; tiny-v1 was trained on exactly
these bytes. ``BRIEF`` does not quote: an observation that ends in ``Plan:`` and numbered steps looks like a revised
plan, and one with ``> take key`` and a result looks like another turn. Use it only with environments that you trust.

``model.prompts`` is the set that a model was trained on; the default is ``FULL``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hiplan.errors import ActionFormatError
from hiplan.formats import NUMBERED, PlanFormat, render_step
from hiplan.plan import ALSO, Plan, ReplanKind, ReplanReason
from hiplan.trace import Episode, Turn

KEEP = "keep"
RESTART_TURNS = 3  # a restarted conversation shows the last turns, this many


def quoted(text: str, mark: str = "|") -> str:
    """Untrusted text with ``mark`` before every line; at least one line."""
    return "\n".join([f"{mark} {line}".rstrip() if line else mark for line in text.splitlines()] or [mark])


def _steps(plan: Plan | None) -> str:
    return "\n".join(["Plan:", *map(render_step, plan.steps)]) if plan else "No plan."


def _resume(episode: Episode) -> str:
    """The task, the current plan, and the last turns."""
    last = "\n".join(f"> {turn.action}\n{turn.observation}" for turn in episode.turns[-RESTART_TURNS:])
    return f"{episode.observation}\n{_steps(episode.plan)}\n{last}"


def _quoted_turns(turns: Sequence[Turn]) -> str:
    return "\n".join(f"{quoted(turn.action, '>')}\n{quoted(turn.observation)}" for turn in turns)


def _full_resume(episode: Episode) -> str:
    last = _quoted_turns(episode.turns[-RESTART_TURNS:])
    return f"{quoted(episode.observation)}\n{_steps(episode.plan)}\n{last}"


@dataclass(frozen=True)
class Prompts:
    """The prompts of both roles.

    ``plan`` and ``revise`` ask the planner; ``revise`` gets the ids of the done steps. ``retry`` gets the error message
    of a text that did not parse. ``act`` asks the executor. ``render_action`` is the inverse of ``parse_action``, for
    demonstrations. ``resume`` restarts a conversation whose context window was full.
    """

    name: str
    planner_system: str
    plan: Callable[[Episode], str]
    revise: Callable[[Episode, ReplanReason, tuple[int, ...]], str]
    retry: Callable[[str], str]
    executor_system: str
    act: Callable[[Episode], str]
    parse_action: Callable[[str], str]
    format: PlanFormat = NUMBERED
    render_action: Callable[[str], str] = str
    resume: Callable[[Episode], str] = _resume

    def with_executor_of(self, other: Prompts) -> Prompts:
        """These prompts for the planner and ``other``'s for the executor, for two models with different prompts."""
        return replace(
            self, executor_system=other.executor_system, act=other.act, parse_action=other.parse_action,
            render_action=other.render_action,
        )  # fmt: skip


def parse_revision(text: str, read: Callable[[str], Plan]) -> Plan | None:
    """Parse an answer to a request for a revision: a plan, or ``None`` for *keep*. Raises ``PlanFormatError``."""
    return None if text.strip().strip(".").lower() == KEEP else read(text)


def last_line(text: str) -> str:
    """The last line that is not blank; earlier lines are reasoning. Raises ``ActionFormatError`` if there is none."""
    for line in reversed(text.splitlines()):
        if line.strip():
            return line.strip()
    raise ActionFormatError("no action found; write one action on a line of its own")


def after_action_mark(text: str) -> str:
    """The text after the last ``Action:``, or else the last line that is not blank. Raises ``ActionFormatError``."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    marked = [line[len("action:") :].strip() for line in lines if line.lower().startswith("action:")]
    action = marked[-1] if marked else lines[-1] if lines else ""
    if not action:
        raise ActionFormatError("no action found; end your answer with a line 'Action: ...'")
    return action


def _plan_is_new(episode: Episode) -> bool:
    record = episode.plans[-1] if episode.plans else None
    return record is not None and not record.kept and record.turn == len(episode.turns)


def _brief_revise(episode: Episode, reason: ReplanReason, done: tuple[int, ...]) -> str:
    head = f"{reason.kind} {reason.step}" if reason.step is not None else str(reason.kind)
    last = episode.turns[-1]
    return f"{head}\n> {last.action}\n{last.observation}\ndone {', '.join(map(str, done)) or 'none'}"


def _act(episode: Episode, show: Callable[[str], str] = str) -> str:
    seen = show(episode.turns[-1].observation if episode.turns else episode.observation)
    return f"{seen}\n{_steps(episode.plan)}" if not episode.turns or _plan_is_new(episode) else seen


BRIEF = Prompts(
    name="brief",
    planner_system="planner",
    plan=lambda episode: episode.observation,
    revise=_brief_revise,
    retry=lambda message: f"error: {message.partition(ALSO)[0]}",
    executor_system="executor",
    act=_act,
    parse_action=last_line,
)

_REASONS = {
    ReplanKind.STEP_FAILED: "Step {step} of the plan failed.",
    ReplanKind.STUCK: "The executor is stuck: its last actions were refused.",
    ReplanKind.USED_UP: "Every step of the plan is done, but the task is not.",
    ReplanKind.CONTRADICTED: "Step {step} of the plan cannot succeed as it is written.",
    ReplanKind.OFF_PLAN: "The executor's last actions served no step of the plan.",
    ReplanKind.NO_PROGRESS: "The last actions completed no step of the plan.",
    ReplanKind.SCHEDULED: "This is a scheduled check of the plan.",
}


def _full_revise(episode: Episode, reason: ReplanReason, done: tuple[int, ...]) -> str:
    since = episode.plans[-1].turn  # earlier prompts showed the turns before
    return (
        f"{_REASONS[reason.kind].format(step=reason.step)}\n\n"
        f"What happened:\n{_quoted_turns(episode.turns[since:])}\n\n"
        f"Steps done: {', '.join(map(str, done)) or 'none'}.\n"
        f"Write the revised plan of what is left, keeping the numbers of steps you keep and giving new steps "
        f"new numbers; or answer '{KEEP}' to go on as planned."
    )


FULL = Prompts(
    name="full",
    planner_system=(
        "You plan for an agent that acts in an environment. Write a short plan for the task: one step per line, "
        "numbered, each a sub-goal the agent can reach by a few actions. Where a step needs others to be done "
        "first, end its line with their numbers, as in '3. make a door after 1, 2'. You may think before the "
        "first step. When you are told how it went, revise the plan. Lines that begin with '|' are what the "
        "environment says, lines that begin with '>' what the agent did."
    ),
    plan=lambda episode: f"The task:\n{quoted(episode.observation)}\n\nWrite the plan.",
    revise=_full_revise,
    retry=lambda message: f"Your answer could not be read: {message}. Write it again.",
    executor_system=(
        "You act in an environment, one action per answer, following the plan you are given. "
        "You may think first; end with a line 'Action: ' and the action, and nothing after it. Lines that begin with "
        "'|' are what the environment says, lines that begin with '>' what you did."
    ),
    act=lambda episode: _act(episode, quoted),
    parse_action=after_action_mark,
    render_action="Action: {}".format,
    resume=_full_resume,
)

STYLES = {style.name: style for style in (BRIEF, FULL)}
