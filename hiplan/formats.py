"""Plans as text: a numbered format for language models and people, and JSON for endpoints.

Numbered text is PilotRL's format (arXiv 2508.00344) with ``after`` marks for dependencies::

    Need door, plank            <- the lines before the first step are the rationale
    1. make plank
    2. make door after 1

A step whose description ends like a mark gets an empty mark: ``3. wait after 2 after none``.

Both parsers accept any string. If it is not a plan they raise ``PlanFormatError``; its message is written for the
author of the text, usually a model, and says what to fix.
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
    """A parser and a renderer, both pure; ``parse(render(plan))`` has the same steps as ``plan``."""

    name: str
    parse: Callable[[str], Plan]
    render: Callable[[Plan], str]


def parse_numbered(text: str) -> Plan:
    """Parse numbered text; a line without a number continues the step before it.

    Raises ``PlanFormatError`` if there is no step, a number occurs twice, a dependency is unknown, or the dependencies
    form a cycle.
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
    """Render a plan as numbered text, rationale first; rationale lines that look like steps are quoted with ``>``."""
    lines = [f"> {line}" if _NUMBERED.match(line) else line for line in plan.rationale.splitlines()]
    return "\n".join([*lines, *(render_step(step) for step in plan.steps)])


def render_step(step: PlanStep) -> str:
    """Render one step as a line such as ``2. make door after 1``."""
    after = ", ".join(map(str, step.after)) or ("none" if _AFTER.match(step.description) else "")
    return f"{step.id}. {step.description}{after and f' after {after}'}"


def parse_json(text: str) -> Plan:
    """Parse the first JSON object in ``text``. Raises ``PlanFormatError`` if it is not a plan."""
    start = text.find("{")
    if start < 0:
        raise PlanFormatError('no JSON object found; answer with {"steps": [{"id": 1, "description": "..."}]}')
    try:
        data, _ = json.JSONDecoder().raw_decode(text[start:])
    except (ValueError, RecursionError) as error:
        raise PlanFormatError(f"the JSON does not parse ({str(error)[:80]}); close every bracket and quote") from None
    return _validated(data)


def render_json(plan: Plan) -> str:
    """Render a plan as one JSON object."""
    return plan.model_dump_json(exclude_defaults=True)


def _validated(data: object, numbers: Sequence[int] = ()) -> Plan:
    """The plan in ``data``. ``numbers``: the steps' numbers in the text, for messages; default: their positions."""
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
