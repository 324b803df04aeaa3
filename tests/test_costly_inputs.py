"""Small inputs that would take long: what a model or a file can hold is answered in time linear in its size."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiplan.errors import PlanFormatError
from hiplan.formats import parse_json
from hiplan.plan import MAX_STEPS, PlanStep, problems


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.perf_counter()
    yield
    assert time.perf_counter() - began < seconds


def text(after: dict[int, list[int]]) -> str:
    return json.dumps({"steps": [{"id": i, "description": "work", "after": others} for i, others in after.items()]})


DENSE = {i: list(range(1, i)) for i in range(1, MAX_STEPS + 1)}
PAIRS = {i: [*range(1, i - i % 2), i + 1 if i % 2 == 0 else i - 1] for i in range(2, MAX_STEPS)}
LAST = {i: DENSE[i] for i in range(1, MAX_STEPS - 1)} | {MAX_STEPS - 1: [MAX_STEPS], MAX_STEPS: [MAX_STEPS - 1]}


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (DENSE | {1: [9999]}, "step 1 comes after step 9999, but there is no step 9999. Also: step 2 can never begin"),
        (DENSE | {MAX_STEPS: [*DENSE[MAX_STEPS], 9999]}, "there is no step 9999"),
        ({i: [j for j in range(1, MAX_STEPS + 1) if j != i] for i in DENSE}, "in a circle: 1 after 2 after 1. Also: "),
        (PAIRS | {1: []}, "in a circle: 2 after 3 after 2. Also: "),
        (LAST, "in a circle: 999 after 1000 after 999"),
        ({i: list(range(2000, 3000)) for i in DENSE}, "there is no step 2000. Also: step 1 comes after step 2001"),
    ],
)
def test_a_large_wrong_plan_is_refused_in_a_moment(after: dict[int, list[int]], said: str) -> None:
    whole = text(after)
    assert len(whole) > 1_000_000
    with within(3), pytest.raises(PlanFormatError) as caught:
        parse_json(whole)
    assert said in str(caught.value) and len(str(caught.value)) < 10_000


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 11)), max_size=14))
def test_problems_are_those_of_a_search_from_every_step(edges: list[tuple[int, int]]) -> None:
    """Against the obvious way: all descendants of each step."""
    steps = [PlanStep(id=i, description="work", after=tuple(b for a, b in edges if a == i)) for i in range(1, 10)]
    found = problems(steps)
    graph = nx.DiGraph([(a, b) for a, b in edges if b < 10])
    graph.add_nodes_from(range(1, 10))
    named = [text for text in found if "never begin" not in text]
    circles = [text.partition(": ")[2].split(" after ") for text in named if "circle" in text]
    hopeless = {a for a, b in edges if b > 9} | {int(i) for circle in circles for i in circle}
    waiting = [
        (i, min(causes)) for i in range(1, 10) if (causes := nx.descendants(graph, i) & hopeless) and i not in hopeless
    ]
    assert found[len(named) :] == [f"step {i} can never begin: it waits for step {cause}" for i, cause in waiting]
    assert bool(found) == bool(hopeless) and (nx.is_directed_acyclic_graph(graph) or circles)
