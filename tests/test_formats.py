"""Any text is read into a plan or answered with what to mend; what is written is read back the same."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hiplan.errors import PlanFormatError
from hiplan.formats import JSON, NUMBERED, PlanFormat, parse_json, parse_numbered, render_numbered, render_step
from hiplan.plan import Plan, PlanStep
from hiplan.prompts import parse_revision

# The pieces plan texts are made of, and those that break parsers.
PIECES = st.sampled_from(
    ["1.", "2)", "3. ", "10.", "0.", "1234567.", "after", " after 1", "after 1, 2", " after none", "(after 3).",
     "make it", ",", ".", "(", ")", " ", "  ", "\t", "\n", "\r", "\x0b", "\x1c", "\x85", "\u2028", "\u00a0", "\x00",
     "\ud800", "٣.", "{", "}", "[", "]", '"', "\\", ":", '{"steps": [', '{"id": 1, "description": "a"}', '"after": [1]',
     "null", "1e999", "NaN", "-1", "true", "keep", "Plan:", "> ", "**", "²"]
)  # fmt: skip
TEXTS = st.one_of(
    st.text(), st.text(st.characters()), st.lists(PIECES, max_size=30).map("".join), st.lists(PIECES).map(" ".join)
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Plans with hostile descriptions; dependencies point back in a random order of distinct ids."""
    ids = draw(st.lists(st.integers(1, 999_999) | st.integers(1, 12), min_size=1, max_size=8, unique=True))
    words = st.one_of(st.text(min_size=1), st.lists(PIECES, min_size=1).map(" ".join))
    printable = words.map(lambda text: text.replace("\ud800", "?")).filter(lambda text: 0 < len(text.strip()) < 400)
    made = []
    for place, i in enumerate(ids):
        after = draw(st.lists(st.sampled_from(ids[:place]), max_size=4)) if place else []
        made.append(PlanStep(id=i, description=draw(printable), after=tuple(after)))
    rationale = draw(st.one_of(st.just(""), words.map(lambda text: text.replace("\ud800", "?"))))
    return Plan(steps=tuple(draw(st.permutations(made))), rationale=rationale, goal=draw(st.text(max_size=5)))


@pytest.mark.parametrize("style", [NUMBERED, JSON], ids=lambda style: style.name)
@given(text=TEXTS)
@example(text="1. " + "9" * 5000)
@example(text='{"steps": [{"id": 1' + "0" * 5000 + ', "description": "a"}]}')
@example(text='{"steps":' + "[" * 100_000)
@example(text="1. a" + " " * 200_000 + "b")  # takes minutes where matching is quadratic
@example(text="1. " + "a after 1, " * 20_000)
def test_any_text_is_a_plan_or_a_format_error(style: PlanFormat, text: str) -> None:
    try:
        plan = style.parse(text)
    except PlanFormatError as error:
        message = str(error)
        assert message and "\n" not in message and len(message) < 300
        return
    assert isinstance(plan, Plan)
    assert style.parse(style.render(plan)).steps == plan.steps


@given(plans())
def test_numbered_text_keeps_the_steps(plan: Plan) -> None:
    assert parse_numbered(render_numbered(plan)).steps == plan.steps


@given(plans())
def test_json_keeps_everything(plan: Plan) -> None:
    assert parse_json(JSON.render(plan)) == plan
    assert parse_json(f"Here it is:\n```json\n{JSON.render(plan)}\n```\nGood luck {{}}.") == plan


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1. make plank\n2. make door after 1", [(1, "make plank", ()), (2, "make door", (1,))]),
        (
            "Need door, plank\n\n1) make plank\n 2.\tmake door (after 1).",
            [(1, "make plank", ()), (2, "make door", (1,))],
        ),
        ("1. a\n2. b\n3. c after 1, 2", [(1, "a", ()), (2, "b", ()), (3, "c", (1, 2))]),
        ("1. make a door\n   of oak\n2. rest", [(1, "make a door of oak", ()), (2, "rest", ())]),
        ("2. b after 1\n1. a", [(2, "b", (1,)), (1, "a", ())]),
        ("1. 3 planks from 2. bench", [(1, "3 planks from 2. bench", ())]),
        ("1. after 5", [(1, "after 5", ())]),  # a mark needs a step before it
        ("1. tidy up after dinner", [(1, "tidy up after dinner", ())]),
        ("1. wait after 3 after none", [(1, "wait after 3", ())]),
        ("1. a\n2. wait after 3 after 1", [(1, "a", ()), (2, "wait after 3", (1,))]),
    ],
)
def test_numbered_text_by_hand(text: str, expected: list[tuple[int, str, tuple[int, ...]]]) -> None:
    assert [(s.id, s.description, s.after) for s in parse_numbered(text).steps] == expected


def test_the_rationale_is_what_comes_first() -> None:
    plan = parse_numbered("Need door, plank.\nPlank first:\n1. make plank")
    assert plan.rationale == "Need door, plank.\nPlank first:"
    assert render_numbered(plan) == "Need door, plank.\nPlank first:\n1. make plank"
    quoting = plan.model_copy(update={"rationale": "1. is what I thought of\nbut no"})
    assert render_numbered(quoting) == "> 1. is what I thought of\nbut no\n1. make plank"


def test_steps_are_written_as_models_learnt_them() -> None:
    assert render_step(PlanStep(id=2, description="make door", after=(1, 3))) == "2. make door after 1, 3"
    assert render_step(PlanStep(id=2, description="make door")) == "2. make door"
    assert render_step(PlanStep(id=2, description="wait after 3")) == "2. wait after 3 after none"


@pytest.mark.parametrize(
    ("style", "text", "message"),
    [
        (NUMBERED, "", "no steps found; write one step per line, each starting with its number, as '1. ...'"),
        (NUMBERED, "make door", "no steps found; write one step per line, each starting with its number, as '1. ...'"),
        (NUMBERED, "1. a\n2.", "the line '2.' has a number but no step; write the number, a space, and what to do"),
        (NUMBERED, "1.make door", "the line '1.make door' has a number but no step; write the number, a space, and"),
        (NUMBERED, "1. a\n1. b", "step number 1 is used twice; give every step a number of its own"),
        (NUMBERED, "1. a\n2. b after 3", "step 2 comes after step 3, but there is no step 3"),
        (NUMBERED, "1. a after 2\n2. b after 1", "the steps wait for each other in a circle: 1 after 2 after 1"),
        (NUMBERED, "5. a\n0. b", "step 0, number: Input should be greater than or equal to 1"),
        (NUMBERED, "5. a\n7. " + "b" * 501, "step 7, description: String should have at most 500 characters"),
        (NUMBERED, "\n".join(f"{i}. a" for i in range(1, 1002)), "1001 steps are too many; write at most 1000"),
        (JSON, "1. a", 'no JSON object found; answer with {"steps": [{"id": 1, "description": "..."}]}'),
        (JSON, '{"steps": [', "the JSON does not parse (Expecting value: line 1 column 12 (char 11)); close every"),
        (JSON, '{"steps": []}', "steps: Tuple should have at least 1 item after validation, not 0"),
        (JSON, '{"plan": "a"}', "steps: Field required"),
        (JSON, '{"steps": [{"id": 1}]}', "steps.0.description: Field required"),
        (JSON, '{"steps": [{"id": 1, "description": "a", "after": [1]}]}', "in a circle: 1 after 1"),
    ],
)
def test_messages_tell_what_to_mend(style: PlanFormat, text: str, message: str) -> None:
    with pytest.raises(PlanFormatError) as caught:
        style.parse(text)
    assert message in str(caught.value)


def test_a_revision_may_keep_the_plan() -> None:
    for text in ("keep", " Keep.\n", "KEEP"):
        assert parse_revision(text, parse_numbered) is None
    revised = parse_revision("1. keep calm", parse_numbered)
    assert revised is not None and revised.steps[0].description == "keep calm"
    with pytest.raises(PlanFormatError):
        parse_revision("keep it", parse_numbered)
