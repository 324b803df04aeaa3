"""Plans as text: the numbered format models write and people read, and JSON for endpoints.

Numbered text (PilotRL's, with ``after`` marks for dependencies)::

    Need door, plank            <- anything before the first step is kept as the rationale
    1. make plank
    2. make door after 1

A step that itself ends like a mark is written with an empty one: ``3. wait after 2 after none``.

Both parsers take any string. What they cannot read raises ``PlanFormatError`` whose message tells
the *author of the text*, usually a model, what to mend.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from hiplan.errors import PlanFormatError
from hiplan.plan import MAX_STEPS, Plan, PlanStep

_STEP = re.compile(r"^[ \t]*([0-9]{1,6})[.)][ \t]+(\S.*)$")
_NUMBERED = re.compile(r"^[ \t]*[0-9]{1,6}[.)]")
_AFTER = re.compile(r"^(.*?\S)[ \t]+\(?after[ \t]+(none|[0-9]{1,6}(?:[ \t]*,[ \t]*[0-9]{1,6})*)\)?[.]?$")


@dataclass(frozen=True)
class PlanFormat:
    """A pair of pure functions; ``parse(render(plan))`` has the same steps as ``plan``."""

    name: str
    parse: Callable[[str], Plan]
    render: Callable[[Plan], str]


def parse_numbered(text: str) -> Plan:
    """Read numbered text into a plan; lines that follow a step without a number continue it.

    Raises ``PlanFormatError`` when there is no step, a number is used twice, a dependency is
    unknown, or dependencies form a circle.
    """
    rationale: list[str] = []
    raw: list[tuple[int, list[str]]] = []
    for line in text.splitlines():
        match = _STEP.match(line)
        if match:
            raw.append((int(match[1]), [match[2].strip()]))
        elif _NUMBERED.match(line):
            shown = line.strip()[:40]
            raise PlanFormatError(
                f"the line {shown!r} has a number but no step; write the number, a space, and what to do"
            )
        elif not line.strip():
            continue
        elif raw:
            raw[-1][1].append(line.strip())
        else:
            rationale.append(line.strip())
    if not raw:
        raise PlanFormatError("no steps found; write one step per line, each starting with its number, as '1. ...'")
    if len(raw) > MAX_STEPS:
        raise PlanFormatError(f"{len(raw)} steps are too many; write at most {MAX_STEPS}")
    steps = []
    for number, parts in raw:
        description, after = " ".join(parts), ""
        mark = _AFTER.match(description)
        if mark:
            description, after = mark[1], mark[2].removeprefix("none")
        steps.append({"id": number, "description": description, "after": [int(i) for i in after.split(",") if i]})
    return _validated({"steps": steps, "rationale": "\n".join(rationale)}, [number for number, _ in raw])


def render_numbered(plan: Plan) -> str:
    """Write a plan as numbered text, rationale first; lines of it that look like steps are quoted with ``>``."""
    lines = [f"> {line}" if _NUMBERED.match(line) else line for line in plan.rationale.splitlines()]
    return "\n".join([*lines, *(render_step(step) for step in plan.steps)])


def render_step(step: PlanStep) -> str:
    """One line: ``2. make door after 1``."""
    after = ", ".join(map(str, step.after)) or ("none" if _AFTER.match(step.description) else "")
    return f"{step.id}. {step.description}{after and f' after {after}'}"


def parse_json(text: str) -> Plan:
    """Read the first JSON object in ``text`` into a plan. Raises ``PlanFormatError``."""
    start = text.find("{")
    if start < 0:
        raise PlanFormatError('no JSON object found; answer with {"steps": [{"id": 1, "description": "..."}]}')
    try:
        data, _ = json.JSONDecoder().raw_decode(text[start:])
    except (ValueError, RecursionError) as error:
        raise PlanFormatError(f"the JSON does not parse ({str(error)[:80]}); close every bracket and quote") from None
    return _validated(data)


def render_json(plan: Plan) -> str:
    """Write a plan as one JSON object."""
    return plan.model_dump_json(exclude_defaults=True)


def _validated(data: object, numbers: Sequence[int] = ()) -> Plan:
    """``numbers``: what the text calls its steps, to name them in the message; without, their place in the data."""
    try:
        return Plan.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        if numbers and len(first["loc"]) > 2:
            _, position, field, *_ = first["loc"]
            place = f"step {numbers[int(position)]}, {'number' if field == 'id' else field}"
        message = first["msg"].removeprefix("Value error, ")
        raise PlanFormatError(f"{place}: {message}" if place else message) from None
    except RecursionError:
        raise PlanFormatError("the plan is nested too deeply; write steps as a flat list") from None


NUMBERED = PlanFormat("numbered", parse_numbered, render_numbered)
JSON = PlanFormat("json", parse_json, render_json)
