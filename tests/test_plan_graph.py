"""The plan graph: what is ready, the critical path, and exports that read back."""

from __future__ import annotations

import json
import re

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st
from tracking import ACTIVE, DIAMOND, DONE, FAILED

from hiplan.coordination import PlanGraph
from hiplan.formats import parse_numbered
from hiplan.plan import Plan, PlanStep


def test_steps_are_ready_when_all_before_them_are_done() -> None:
    graph = PlanGraph(DIAMOND)
    assert graph.ready(()) == (1,)
    assert graph.ready({1}) == (2, 3)
    assert graph.ready({1, 3}) == (2,)
    assert graph.ready({2, 3}) == (1, 4)
    assert graph.ready({1, 2, 3, 4}) == ()
    assert PlanGraph(parse_numbered("3. a\n1. b\n2. c after 1")).ready(()) == (3, 1), "in plan order"


def test_layers_and_critical_path() -> None:
    graph = PlanGraph(DIAMOND)
    assert graph.layers() == [[1], [2, 3], [4]]
    assert graph.critical_path() in ([1, 2, 4], [1, 3, 4])
    lonely = PlanGraph(parse_numbered("7. a\n3. b"))
    assert lonely.layers() == [[3, 7]] and len(lonely.critical_path()) == 1


def test_next_progress_and_what_is_left_of_the_critical_path() -> None:
    graph = PlanGraph(DIAMOND)
    assert [graph.next(done) for done in ((), {1}, {1, 2}, {1, 2, 3}, {1, 2, 3, 4})] == [1, 2, 3, 4, None]
    assert [graph.progress(done) for done in ((), {1}, {1, 2, 3, 4, 9})] == [0.0, 0.25, 1.0]
    assert graph.critical_path({1}) in ([2, 4], [3, 4]) and graph.critical_path({1, 2, 3}) == [4]
    assert graph.critical_path({1, 2, 3, 4}) == []


STATUSES = {1: DONE, 2: FAILED, 3: ACTIVE}


def test_exports_read_back() -> None:
    graph = PlanGraph(DIAMOND)
    known = nx.node_link_graph(json.loads(graph.to_json(STATUSES)), edges="edges")
    read = nx.parse_graphml(graph.to_graphml(STATUSES), node_type=int)
    for again in (known, read):
        assert set(again.edges) == {(1, 2), (1, 3), (2, 4), (3, 4)} and again.is_directed()
        assert [again.nodes[i]["status"] for i in (1, 2, 3, 4)] == ["done", "failed", "active", "open"]
        assert again.nodes[2]["label"] == "fire brick"
    lines = graph.to_mermaid(STATUSES).splitlines()
    assert lines[:5] == [
        "flowchart TD",
        '    s1["✓ 1. dig clay"]:::done',
        '    s2["✗ 2. fire brick"]:::failed',
        '    s3["▶ 3. mix mortar"]:::active',
        '    s4["○ 4. build wall"]:::open',
    ]
    assert lines[5:9] == ["    s1 --> s2", "    s1 --> s3", "    s2 --> s4", "    s3 --> s4"]


@given(st.text(min_size=1, max_size=40).filter(str.strip))
def test_no_step_text_breaks_an_export(text: str) -> None:
    graph = PlanGraph(Plan(steps=(PlanStep(id=1, description=text), PlanStep(id=2, description="b", after=(1,)))))
    label = graph.plan.steps[0].description
    assert json.loads(graph.to_json())["nodes"][0]["label"] == label
    assert set(nx.parse_graphml(graph.to_graphml(), node_type=int).nodes) == {1, 2}
    line = graph.to_mermaid().splitlines()[1]
    assert re.fullmatch(r'    s1\["○ 1\. ([^"<>&`\[\]{}|]*)"\]:::open', line), line
    assert len(graph.to_mermaid().splitlines()) == 8


@given(
    st.sets(st.tuples(st.integers(1, 9), st.integers(1, 9)).filter(lambda e: e[0] < e[1])),
    st.permutations(range(1, 10)),
)
def test_doing_what_is_ready_does_everything_in_order(edges: set[tuple[int, int]], order: list[int]) -> None:
    after = {i: tuple(sorted(a for a, b in edges if b == i)) for i in order}
    plan = Plan(steps=tuple(PlanStep(id=i, description="work", after=after[i]) for i in order))
    graph, done = PlanGraph(plan), []
    while ready := graph.ready(done):
        assert [i for i in order if i in ready] == list(ready), "in plan order"
        assert all(set(after[i]) <= set(done) for i in ready)
        done.append(ready[0])
    assert sorted(done) == list(range(1, 10))
    assert len(graph.layers()) == len(graph.critical_path()) == nx.dag_longest_path_length(graph.graph) + 1
