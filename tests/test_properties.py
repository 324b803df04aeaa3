"""What holds for every plan, text and episode (hypothesis); properties of one module stand in that module's tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiplan.agent import Agent
from hiplan.coordination import (
    Limits,
    PlanGraph,
    Scores,
    Tracker,
    matching,
    never,
    on_failure,
    replan,
    scores,
    step_states,
)
from hiplan.coordination.adherence import ActionJudgement
from hiplan.effects import Acted
from hiplan.envs import make_env
from hiplan.executors import Executor
from hiplan.model import ScriptedModel
from hiplan.plan import Plan, PlanDiff, PlanStep, ReplanKind, ReplanReason, StepStatus, diff
from hiplan.planners import Planner
from hiplan.planners.simple import renumber
from hiplan.prompts import BRIEF, FULL, Prompts
from hiplan.report import transcript
from hiplan.task import StepResult, Task
from hiplan.trace import Episode, PlanRecord, Turn, Verdict
from hiplan.training.sources import merged_plan

DOOR = Task(
    env="crafting", params={"recipes": ["craft plank using 2 wood", "craft door using 1 plank"], "goal": "door"}
)
CUP = Task(env="household", params={"seed": 1, "kind": "clean", "places": 4})

# Words that mean something to matchers and environments, and characters that break texts.
WORDS = (
    "make get find put clean take go open craft plank door wood cup 1 2 9999 rack sink box using with from at in to : "
    ', . \n \t \x00 \x1b[31m \u2028 \ud800 ٣ é 中 " & < > [ ] { } | #quot; --> ; ``` keep after'
).split(" ")
TEXTS = st.one_of(st.text(st.characters(), max_size=40), st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
LINES = TEXTS.map(lambda text: text.replace("\ud800", "").encode(errors="ignore").decode())  # what a plan can hold
STEP_TEXTS = st.one_of(st.sampled_from(["make plank", "make door", "find cup at rack 1", "put cup in box 1"]), LINES)


@st.composite
def plans(draw: st.DrawFn, most: int = 7) -> Plan:
    """Plans with any text; ids and dependencies in any order, small ids so that two plans share some."""
    ids = draw(st.lists(st.integers(1, 9), min_size=1, max_size=most, unique=True))
    made = []
    for place, i in enumerate(ids):
        after = draw(st.sets(st.sampled_from(ids[:place]), max_size=3)) if place else ()
        made.append(PlanStep(id=i, description=draw(STEP_TEXTS.filter(str.strip)), after=tuple(after)))
    return Plan(steps=tuple(draw(st.permutations(made))), rationale=draw(LINES), goal=draw(LINES))


PLANS, DONE = plans(), st.sets(st.integers(1, 9))


def ids(plan: Plan) -> list[int]:
    return [step.id for step in plan.steps]


def again(plan: Plan) -> Plan:
    """The plan, checked anew: ``model_copy`` checks nothing."""
    return Plan.model_validate(plan.model_dump())


# -- plans and their graphs -------------------------------------------------------------------


@given(PLANS, st.randoms(use_true_random=False))
def test_playing_ready_steps_in_any_order_finishes_the_plan(plan: Plan, chance: Any) -> None:
    graph, done = PlanGraph(plan), []
    while ready := graph.ready(done):
        assert graph.next(done) == ready[0] and not set(ready) & set(done)
        assert graph.progress(done) == len(done) / len(plan.steps) < 1
        done.append(chance.choice(ready))
    assert sorted(done) == sorted(ids(plan)) and graph.next(done) is None and graph.progress(done) == 1


@given(PLANS, DONE)
def test_the_critical_path_is_a_longest_chain_of_what_is_left(plan: Plan, done: set[int]) -> None:
    graph = PlanGraph(plan)
    path, left = graph.critical_path(done), {i for i in ids(plan) if i not in done}
    assert set(path) <= left and all(a in plan.step(b).after for a, b in pairwise(path))

    def longest(i: int) -> int:
        return 1 + max((longest(j) for j in plan.step(i).after if j in left), default=0)

    assert len(path) == max(map(longest, left), default=0)


@given(PLANS, DONE)
def test_a_plan_does_not_differ_from_itself(plan: Plan, done: set[int]) -> None:
    change = diff(plan, plan, done)
    assert change == PlanDiff(kept=tuple(ids(plan))) and change.distance == 0


@given(PLANS, PLANS, DONE)
def test_what_was_done_explains_a_loss_and_costs_nothing(old: Plan, new: Plan, done: set[int]) -> None:
    change, strict = diff(old, new, done), diff(old, new)
    assert set(change.done) | set(change.dropped) == set(strict.dropped) and not set(change.done) & set(change.dropped)
    assert set(change.done) <= done and change.distance == strict.distance - len(change.done)


@given(PLANS, PLANS, DONE)
def test_renumbering_keeps_a_plan_a_plan(plan: Plan, previous: Plan, done: set[int]) -> None:
    numbered = again(renumber(plan, previous, done))
    assert [s.description for s in numbered.steps] == [s.description for s in plan.steps]
    new_id = dict(zip(ids(plan), ids(numbered), strict=True))
    assert [[new_id[i] for i in s.after] for s in plan.steps] == [list(s.after) for s in numbered.steps]
    for step in numbered.steps:
        if step.id in ids(previous):
            assert step.id not in done and previous.step(step.id).description == step.description


@given(PLANS, st.dictionaries(st.integers(1, 9), st.sampled_from(StepStatus)))
def test_every_export_can_be_read(plan: Plan, statuses: dict[int, StepStatus]) -> None:
    graph = PlanGraph(plan)
    edges = {(before, step.id) for step in plan.steps for before in step.after}
    known = json.loads(graph.to_json(statuses))
    assert [(n["id"], n["label"]) for n in known["nodes"]] == [(s.id, s.description) for s in plan.steps]
    assert {(e["source"], e["target"]) for e in known["edges"]} == edges
    read = nx.parse_graphml(graph.to_graphml(statuses), node_type=int)
    assert set(read.nodes) == set(ids(plan)) and set(read.edges) == edges
    assert {i: read.nodes[i]["status"] for i in read} == {i: statuses.get(i, "open") for i in read}
    first, *lines = graph.to_mermaid(statuses).split("\n")
    nodes = [re.fullmatch(r'    s(\d+)\["[○▶✓✗] \1\. ([^"<>&`\[\]{}|]*)"\]:::(\w+)', line) for line in lines]
    arrows = [re.fullmatch(r"    s(\d+) --> s(\d+)", line) for line in lines]
    assert first == "flowchart TD" and len(lines) == len(plan.steps) + len(edges) + 5
    assert [int(m[1]) for m in nodes if m] == ids(plan)
    assert {(int(m[1]), int(m[2])) for m in arrows if m} == edges


# -- matchers and the tracker -----------------------------------------------------------------

MATCHERS = {"environment": matching.by_environment, "words": matching.by_words, "default": matching.best_known}


@st.composite
def acting(draw: st.DrawFn) -> tuple[Plan, list[tuple[str, StepResult, Any, Any, bool]]]:
    """A plan, and what is taken in under it: action, result, which steps it serves, their status, effect."""
    plan = draw(PLANS)
    each = {"min_size": len(plan.steps), "max_size": len(plan.steps)}
    results = st.builds(StepResult, TEXTS, refused=st.booleans())
    serves, status = st.lists(st.booleans(), **each), st.lists(st.sampled_from(StepStatus), **each)
    row = st.tuples(TEXTS, results, st.none() | serves, st.none() | status, st.booleans())
    return plan, draw(st.lists(row, max_size=6))


def watch(name: str, plan: Plan, rows: list[tuple[str, StepResult, Any, Any, bool]]) -> list[ActionJudgement]:
    """The verdicts on what was done; checks what holds after each."""
    tracker, found = Tracker(plan), []
    for action, result, serves, status, effect in rows:
        before = set(tracker.done)
        asking = MATCHERS[name](plan, action, result.observation, serves)
        with pytest.raises(StopIteration) as stop:
            next(asking)
        assert all(match.step in ids(plan) and 0 < match.score <= 1 for match in stop.value.value)
        judged = tracker.observe(result, stop.value.value, status, effect)
        assert before <= tracker.done <= set(ids(plan)) and set(judged.done) == tracker.done - before
        assert set(judged.failed) == tracker.failed and not tracker.failed & tracker.done
        assert judged.verdict in set(Verdict) and judged.evidence
        assert (judged.step is None) == (judged.verdict in (Verdict.OFF_PLAN, Verdict.UNPLANNED_RECOVERY))
        assert tracker.used_up == (not tracker.ready())
        found.append(judged)
    return found


@pytest.mark.parametrize("name", MATCHERS)
@given(acting())
def test_nothing_throws_what_is_done_grows_and_the_same_is_judged_alike(name: str, case: Any) -> None:
    assert watch(name, *case) == watch(name, *case)


def test_verdicts_do_not_depend_on_the_order_of_sets() -> None:
    """Two processes whose strings hash otherwise judge alike, to the last word of the evidence."""
    code = """
from hiplan.coordination import Tracker, matching
from hiplan.formats import parse_numbered
from hiplan.task import StepResult
notes = "for door: plank, nail, glue\\nfor box: nail, lid\\n"
steps = "1. make oak door for the old house\\n2. make oak box with a lid\\n3. put box behind door in house after 1, 2"
plan = parse_numbered(notes + steps)
tracker = Tracker(plan)
for action in ("get nail and glue", "make oak door", "craft box, lid, house, oak, door", "dance", "go to lid"):
    for seen in ("", "the old oak house has a box with a lid behind the door"):
        try:
            next(matching.by_words(plan, action, seen, None))
        except StopIteration as stop:
            print(stop.value, tracker.observe(StepResult(seen), stop.value))
"""
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    ]
    assert said[0] == said[1] == said[2] and said[0].count("evidence=") > 10


# -- the loop ---------------------------------------------------------------------------------

POLICIES = {
    "never": never,
    "on failure": on_failure(),
    "every turn": replan.every(),
    "every third": replan.every(3),
    "failed step": replan.failed_step,
    "contradicted": replan.contradicted,
    "used up": replan.used_up,
    "stuck": replan.stuck(1),
    "off plan": replan.off_plan(1),
    "no progress": replan.no_progress(2),
    "any, capped": replan.capped(replan.any_of(replan.no_progress(1), replan.failed_step, replan.off_plan(2)), 3),
}
WRITTEN = st.lists(
    st.one_of(
        TEXTS,
        st.sampled_from(
            ["keep", "1. make plank\n2. make door after 1", "2. make door\n1. make plank after 2", "get 2 wood",
             "craft 1 plank using 2 wood", "craft 1 door using 1 plank", "1. find cup at rack 1\n2. put cup in box 1",
             "go to rack 1", "take cup 1 from rack 1", "1. dance\n2. make plank", "Plan:\n1. make door\nAction: look"]
        ),
    ),
    min_size=1,
    max_size=12,
)  # fmt: skip


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=25)
@given(
    WRITTEN,
    st.sampled_from([DOOR, CUP]),
    st.sampled_from([BRIEF, FULL]),
    st.sampled_from([matching.best_known, matching.by_words]),
)
def test_whatever_is_written_every_policy_leads_to_an_end(
    name: str, texts: list[str], task: Task, prompts: Prompts, matcher: matching.Matcher
) -> None:
    """And scores that were counted along the way are those of the record; it can be told and kept."""
    said = iter(range(10**6))
    model = ScriptedModel(lambda conversation: texts[next(said) % len(texts)])
    agent = Agent(model, Planner(prompts), Executor(prompts), make_env, replan=POLICIES[name], limits=Limits(turns=8))
    agent.matcher = matcher
    counted, known = Scores(), 0
    for event in (stream := agent.stream(task)):
        episode = stream.episode
        if isinstance(event, Acted):
            counted, known = catch_up(counted, episode, known, event.turn)
            assert counted == scores(episode)
    episode = stream.episode
    assert episode.stop is not None and 1 <= len(episode.turns) <= 8
    found, plan = scores(episode), episode.plan
    assert found.done <= set(ids(plan) if plan else ())
    last = step_states(episode)[-1]
    assert found.done <= {i for i, status in last.items() if status is StepStatus.DONE}
    assert transcript(episode) and Episode.from_json(episode.to_json()).to_json() == episode.to_json()
    for record in episode.plans:
        if record.plan is not None:
            again(record.plan)


def catch_up(counted: Scores, episode: Episode, known: int, turn: Turn) -> tuple[Scores, int]:
    """Take in the plans that came before this turn, then the turn; ``known``: how many plans were taken in."""
    for record in episode.plans[known:]:
        counted.revise(record)
    counted.add(turn)
    return counted, len(episode.plans)


# -- scores -----------------------------------------------------------------------------------


SEEN = st.lists(
    st.tuples(st.sampled_from([*Verdict, *[Verdict.OFF_PLAN] * 3]), st.integers(0, 6), st.sets(st.integers(0, 6))),
    max_size=5,
)


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    """Plans that come and go (kept, revised, lost), up to five turns of any verdict under each."""
    episode, plan = Episode(Task(env="e"), ""), draw(plans(most=5))
    episode.plans.append(PlanRecord(0, plan))
    for following in [*draw(st.lists(st.sampled_from(["kept", "none", "new", "new"]), max_size=4)), ""]:
        reason = None
        for verdict, served, done in draw(SEEN):
            known: list[int] = ids(plan) if plan else []
            step = known[served % len(known)] if plan and verdict is not Verdict.OFF_PLAN else None
            turn = Turn(len(episode.turns), "act", "", 0.0, False, verdict if plan else None, step)
            completed = tuple(known[i] for i in sorted(done) if i < len(known))
            episode.turns.append(replace(turn, done=completed))
            reason = ReplanReason(kind=ReplanKind.STEP_FAILED, step=step) if step else None
        if following:
            plan = plan if following == "kept" else draw(plans(most=5)) if following == "new" else None
            episode.plans.append(PlanRecord(len(episode.turns), plan, reason, following == "kept"))
    return episode


@given(episodes())
def test_scores_of_a_stream_are_those_counted_from_scratch(episode: Episode) -> None:
    counted, known = Scores(), 0
    for turn in episode.turns:
        so_far = [record for record in episode.plans if record.turn <= turn.index]
        before = Episode(episode.task, "", plans=so_far, turns=episode.turns[: turn.index + 1])
        counted, known = catch_up(counted, before, known, turn)
        assert counted == scores(before)
    found = scores(episode)
    verdicts = [turn.verdict for turn in episode.turns if turn.verdict]
    told = "".join("o" if verdict is Verdict.OFF_PLAN else "." for verdict in verdicts)
    assert found.drift == max(map(len, told.split(".")), default=0)
    assert found.violations == verdicts.count(Verdict.PREMATURE) and found.actions == len(verdicts)
    plans = [record.plan for record in episode.plans if not record.kept]
    written = [(before, after) for before, after in pairwise(plans) if after]
    assert found.revisions == len(written) == episode.revisions()
    least, most = (
        sum(diff(a, b, known).distance if a else len(b.steps) for a, b in written) for known in (range(10), ())
    )
    assert least <= found.edits <= most
    states = step_states(episode)[-1]
    assert found.done == {i for i, status in states.items() if status is StepStatus.DONE}
    assert found.coverage == (len(found.done) / len(states) if states else None)


@given(episodes())
def test_the_whole_plan_of_an_episode_is_a_plan(episode: Episode) -> None:
    """The last plan after steps of earlier ones that were served and never failed."""
    whole = merged_plan(episode)
    assert (whole is None) == (episode.plan is None)
    if whole is None or episode.plan is None:
        return
    assert again(whole).steps[-len(episode.plan.steps) :] == episode.plan.steps
    before = ids(whole)[: -len(episode.plan.steps)]
    failed = {record.reason.step for record in episode.plans if record.reason}
    assert set(before) <= {turn.step for turn in episode.turns if turn.verdict is Verdict.ON_PLAN} - failed
