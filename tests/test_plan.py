"""A plan is consistent, or it does not exist; two revisions compare by step id."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hiplan.plan import ALSO, MAX_STEP_CHARS, MAX_STEPS, Plan, PlanDiff, PlanStep, diff, problems
from hiplan.prompts import BRIEF


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
    ("before", "after", "expected", "distance"),
    [
        ("1a 2b 3c", "1a 2b 3c", PlanDiff(kept=(1, 2, 3)), 0),
        ("1a 2b 3c", "1a 3c 2b", PlanDiff(kept=(1, 2, 3), moved=(2,)), 1),
        ("1a 2b 3c", "4d 2x 3c", PlanDiff(kept=(3,), reworded=(2,), added=(4,), dropped=(1,)), 3),
        ("1a", "2a", PlanDiff(added=(2,), dropped=(1,)), 2),
        ("1a 2b", "3c 2b 4d 1a", PlanDiff(kept=(1, 2), moved=(1,), added=(3, 4)), 3),
        ("1a 2b 3c 4d 5e", "5e 1a 2b 3c 4d", PlanDiff(kept=(1, 2, 3, 4, 5), moved=(5,)), 1),
    ],
)
def test_diff_by_hand(before: str, after: str, expected: PlanDiff, distance: int) -> None:
    old, new = (Plan(steps=steps(*((int(s[0]), s[1:], ()) for s in text.split()))) for text in (before, after))
    assert diff(old, new) == expected
    assert diff(old, new).distance == distance


def test_leaving_out_what_is_done_is_no_edit_and_waiting_for_another_step_is_one() -> None:
    old = Plan(steps=steps((1, "a", ()), (2, "b", (1,)), (3, "c", (2,))))
    new = Plan(steps=steps((2, "b", ()), (3, "c", (2,))))
    assert diff(old, new, done={1}) == PlanDiff(kept=(2, 3), rewired=(2,), done=(1,))
    assert (diff(old, new, done={1}).distance, diff(old, new).distance) == (1, 2)


PLANS = st.builds(
    lambda order, texts, edges: Plan(
        steps=steps(*((i, texts[i], tuple(sorted(a for a, b in edges if b == i and a in order))) for i in order))
    ),
    st.lists(st.integers(1, 6), min_size=1, unique=True),
    st.fixed_dictionaries({i: st.sampled_from("abc") for i in range(1, 7)}),
    st.sets(st.tuples(st.integers(1, 6), st.integers(1, 6)).filter(lambda e: e[0] < e[1])),
)


@given(PLANS, PLANS, st.sets(st.integers(1, 6)))
def test_a_diff_accounts_for_every_step_and_its_distance_is_one(old: Plan, new: Plan, done: set[int]) -> None:
    change = diff(old, new, done)
    assert sorted(change.kept + change.reworded + change.dropped + change.done) == sorted(s.id for s in old.steps)
    assert sorted(change.kept + change.reworded + change.added) == sorted(s.id for s in new.steps)
    steady = [i for i in change.kept + change.reworded if i not in change.moved]
    order = {i: sorted(steady, key=[s.id for s in plan.steps].index) for i, plan in enumerate((old, new))}
    assert order[0] == order[1], "what has not moved stands in the same order"
    assert diff(old, new).distance == diff(new, old).distance
    assert (diff(old, new).distance == 0) == (old.steps == new.steps)


def test_every_problem_is_named_at_once() -> None:
    broken = steps((1, "a", (9,)), (2, "b", (1,)), (3, "c", (4,)), (4, "d", (3,)), (5, "e", (4,)), (6, "f", ()))
    assert problems(broken) == [
        "step 1 comes after step 9, but there is no step 9",
        "the steps wait for each other in a circle: 3 after 4 after 3",
        "step 2 can never begin: it waits for step 1",
        "step 5 can never begin: it waits for step 3",
    ]
    assert BRIEF.retry(f"{problems(broken)[0]}{ALSO}more") == "error: step 1 comes after step 9, but there is no step 9"
    with pytest.raises(ValidationError, match=r"no step 9. Also: the steps wait .* 3; step 2 can never begin"):
        Plan(steps=broken)
