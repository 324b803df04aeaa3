"""A plan is consistent, or it does not exist; two revisions compare by step id."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hiplan.plan import MAX_STEP_CHARS, MAX_STEPS, Plan, PlanDiff, PlanStep, diff


def steps(*lines: tuple[int, str, tuple[int, ...]]) -> tuple[PlanStep, ...]:
    return tuple(PlanStep(id=i, description=text, after=after) for i, text, after in lines)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([(1, ()), (2, ()), (1, ())], "step number 1 is used twice; give every step a number of its own"),
        ([(1, ()), (2, (1, 7))], "step 2 comes after step 7, but there is no step 7"),
        ([(1, (1,))], "the steps wait for each other in a circle: 1 after 1"),
        ([(1, ()), (2, (4,)), (3, (2,)), (4, (1, 3))], "the steps wait for each other in a circle: 2 after 4 after 3"),
    ],
)
def test_contradictions_are_named(edges: list[tuple[int, tuple[int, ...]]], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Plan(steps=steps(*((i, "work", after) for i, after in edges)))
    assert message in caught.value.errors()[0]["msg"]


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), max_size=12))
def test_plans_are_exactly_the_acyclic_graphs(edges: list[tuple[int, int]]) -> None:
    after = {i: tuple(a for a, b in edges if b == i) for i in range(1, 9)}
    try:
        Plan(steps=steps(*((i, "work", after[i]) for i in after)))
    except ValidationError as error:
        assert "circle" in str(error)
        assert not nx.is_directed_acyclic_graph(nx.DiGraph(edges))
    else:
        assert nx.is_directed_acyclic_graph(nx.DiGraph(edges))


def test_a_thousand_steps() -> None:
    """Neither the longest chain, written backwards, nor every step after all before it is too much."""
    chain = Plan(steps=steps(*((i, f"step {i}", (i - 1,) if i > 1 else ()) for i in range(MAX_STEPS, 0, -1))))
    assert chain.step(MAX_STEPS).after == (MAX_STEPS - 1,)
    assert len(Plan(steps=steps(*((i, "work", tuple(range(1, i))) for i in range(1, MAX_STEPS + 1)))).steps) == 1000
    assert diff(chain, chain).kept == tuple(range(MAX_STEPS, 0, -1))
    with pytest.raises(ValidationError, match="circle"):
        Plan(steps=steps(*((i, "work", (i % MAX_STEPS + 1,)) for i in range(1, MAX_STEPS + 1))))
    with pytest.raises(ValidationError, match="at most 1000"):
        Plan(steps=steps(*((i, "work", ()) for i in range(1, MAX_STEPS + 2))))


@pytest.mark.parametrize(
    "step",
    [
        {"id": 0, "description": "a"},
        {"id": 1_000_000, "description": "a"},
        {"id": 1, "description": ""},
        {"id": 1, "description": " \n "},
        {"id": 1, "description": "a" * (MAX_STEP_CHARS + 1)},
        {"id": 1, "description": "a", "after": [0]},
        {"id": 1, "description": "a", "depends_on": [2]},
        {"id": 1},
    ],
)
def test_impossible_steps(step: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PlanStep.model_validate(step)


def test_a_description_is_one_line() -> None:
    assert PlanStep(id=1, description="  make\n a\u2028door ").description == "make a door"
    assert PlanStep.model_validate_json('{"id": 1, "description": "make\\n\\ta door"}').description == "make a door"


def test_plans_are_values() -> None:
    plan = Plan(steps=steps((1, "a", ()), (2, "b", (1,))), goal="g", rationale="r", revision=3)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert hash(plan) == hash(plan.model_copy())
    with pytest.raises(ValidationError):
        plan.revision = 4  # type: ignore[misc]
    assert plan.step(2).description == "b"
    with pytest.raises(KeyError):
        plan.step(3)
    with pytest.raises(ValidationError):
        Plan(steps=())


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("1a 2b 3c", "1a 2b 3c", PlanDiff(kept=(1, 2, 3), reworded=(), added=(), dropped=(), reordered=False)),
        ("1a 2b 3c", "1a 3c 2b", PlanDiff(kept=(1, 2, 3), reworded=(), added=(), dropped=(), reordered=True)),
        ("1a 2b 3c", "4d 2x 3c", PlanDiff(kept=(3,), reworded=(2,), added=(4,), dropped=(1,), reordered=False)),
        ("1a", "2a", PlanDiff(kept=(), reworded=(), added=(2,), dropped=(1,), reordered=False)),
        ("1a 2b", "3c 2b 4d 1a", PlanDiff(kept=(1, 2), reworded=(), added=(3, 4), dropped=(), reordered=True)),
    ],
)
def test_diff_by_hand(before: str, after: str, expected: PlanDiff) -> None:
    old, new = (Plan(steps=steps(*((int(s[0]), s[1:], ()) for s in text.split()))) for text in (before, after))
    assert diff(old, new) == expected
