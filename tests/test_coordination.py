"""Adherence, the plan graph, the judge and the replan policies, by hand-made cases."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, get_args

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiplan.agent import Agent
from hiplan.coordination import (
    Limits,
    PlanGraph,
    PlanScore,
    Tracker,
    judge_plan,
    matching,
    never,
    on_failure,
    replan,
    scores,
)
from hiplan.coordination.adherence import ActionJudgement, adherence
from hiplan.coordination.matching import best_known, lexical_scores
from hiplan.coordination.replan import idle_turns
from hiplan.env import PlanAware
from hiplan.envs import make_env
from hiplan.executors import Executor
from hiplan.formats import parse_numbered
from hiplan.model import ScriptedModel
from hiplan.plan import Plan, PlanStep, ReplanKind, ReplanReason, StepStatus
from hiplan.planners import Planner
from hiplan.prompts import BRIEF, STYLES
from hiplan.report import transcript
from hiplan.task import StepResult, Task
from hiplan.trace import Conversation, Episode, PlanRecord, Turn, Verdict

OPEN, DONE, FAILED, ACTIVE = StepStatus
ON, OFF, EARLY, AGAIN = Verdict.ON_PLAN, Verdict.OFF_PLAN, Verdict.PREMATURE, Verdict.REPEATED
RECOVERY = Verdict.UNPLANNED_RECOVERY
FINE, REFUSED = StepResult("fine"), StepResult("no", refused=True)
DIAMOND = parse_numbered("1. dig clay\n2. fire brick after 1\n3. mix mortar after 1\n4. build wall after 2, 3")


def answered(matching: Any) -> Any:
    """What a sub-generator returns that asks nobody."""
    with pytest.raises(StopIteration) as stop:
        next(matching)
    return stop.value.value


def see(
    tracker: Tracker, action: str, result: StepResult, serves: Any, status: Any, effect: bool = True
) -> ActionJudgement:
    matches = answered(best_known(tracker.plan, action, result.observation, serves)) if tracker.plan else ()
    return tracker.observe(result, matches, status, effect)


def plan_aware(task: Task) -> PlanAware:
    env = make_env(task)
    env.reset(task)
    assert isinstance(env, PlanAware)
    return env


CHAIN = Task(
    env="crafting",
    params={"recipes": ["craft a using 1 x", "craft b using 1 a, 1 y", "craft c using 1 b"], "goal": "c"},
)
TREE = Task(
    env="crafting",
    params={"recipes": ["craft a using 1 x", "craft b using 1 y", "craft c using 1 a, 1 b"], "goal": "c"},
)
CUP = Task(env="household", params={"seed": 1, "kind": "clean"})


# -- the graph --------------------------------------------------------------------------------


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


# -- the tracker ------------------------------------------------------------------------------


def test_verdicts_where_the_environment_knows() -> None:
    """Rows: which steps the action serves, how all steps stand afterwards -> verdict, step, done, ready."""
    tracker = Tracker(DIAMOND)
    rows = [
        ([0, 0, 0, 0], [OPEN] * 4, OFF, None, set(), (1,)),
        ([0, 1, 0, 0], [OPEN] * 4, EARLY, 2, set(), (1,)),
        ([1, 1, 0, 0], [DONE, OPEN, OPEN, OPEN], ON, 1, {1}, (2, 3)),  # on plan goes before premature
        ([1, 0, 0, 0], [DONE, OPEN, OPEN, OPEN], AGAIN, 1, {1}, (2, 3)),
        ([1, 0, 0, 1], [DONE, OPEN, OPEN, OPEN], EARLY, 4, {1}, (2, 3)),  # and premature before repeated
        ([0, 0, 1, 0], [DONE, OPEN, DONE, OPEN], ON, 3, {1, 3}, (2,)),
        ([0, 1, 0, 0], [OPEN, OPEN, OPEN, OPEN], ON, 2, {1, 3}, (2,)),  # once done, a step stays done
        ([0, 1, 0, 1], [DONE, DONE, DONE, DONE], ON, 2, {1, 2, 3, 4}, ()),  # the last one follows at once
    ]
    for serves, status, verdict, step, done, ready in rows:
        assert see(tracker, "act", FINE, [bool(s) for s in serves], status).verdict is verdict
        assert (tracker.served if verdict is not OFF else None, tracker.done, tracker.ready()) == (step, done, ready)
    assert tracker.used_up


def test_a_step_counts_as_done_only_in_its_turn() -> None:
    """Two steps may read the same: 'put cup', and 'put cup' again after it was cleaned."""
    tracker = Tracker(DIAMOND)
    see(tracker, "act", FINE, [True, False, False, False], [OPEN, DONE, OPEN, DONE])
    assert tracker.done == set()
    see(tracker, "act", FINE, [True, False, False, False], [DONE, DONE, OPEN, DONE])
    assert tracker.done == {1, 2} and tracker.ready() == (3,)


def test_failed_steps() -> None:
    tracker = Tracker(DIAMOND)
    see(tracker, "dig", REFUSED, [True, False, False, False], [OPEN] * 4)
    assert tracker.failed_step() == 1, "an action for a ready step was refused"
    see(tracker, "dig", FINE, [True, False, False, False], [DONE, OPEN, OPEN, OPEN])
    assert tracker.failed_step() is None, "failures are of the last action"
    see(tracker, "fire", FINE, [False, True, False, False], [DONE, OPEN, OPEN, FAILED])
    assert tracker.failed == {4} and tracker.failed_step() is None, "it is not its turn"
    see(tracker, "fire", REFUSED, [False, False, False, True], [DONE, OPEN, FAILED, OPEN])
    assert tracker.failed_step() == 3, "the environment says so; the refused action was premature"
    see(tracker, "dig", REFUSED, [True, False, False, False], [FAILED, OPEN, OPEN, OPEN])
    assert tracker.failed == set(), "what is done cannot fail"


def test_verdicts_where_the_environment_knows_nothing() -> None:
    tracker = Tracker(DIAMOND)
    rows = [
        ("dig clay by the river", FINE, ON, set()),
        ("dig more clay", FINE, ON, set()),
        ("fire the brick", REFUSED, EARLY, set()),
        ("dig clay", FINE, ON, {2}),  # an accepted action for another step: the step before counts as done
        ("build the wall", FINE, EARLY, {1, 2}),
        ("dance", FINE, OFF, {1, 2}),
        ("mix mortar", FINE, ON, {1, 2, 4}),
    ]
    for action, result, verdict, done in rows:
        assert see(tracker, action, result, None, None).verdict is verdict, action
        assert tracker.done == done, action


def test_shared_words() -> None:
    """Of two steps: words in one weigh log 3, words in both log 2; those of the observation alone count half."""
    plan = parse_numbered("1. make oak door\n2. make bed")
    rare, common = math.log(3), math.log(2)
    rows = [
        ("craft 1 oak door", "", [1.0, common / (rare + common)]),  # make and craft are one word
        ("open the doors", "", [rare / (2 * rare + common), 0.0]),
        ("open the door", "an oak thing", [1.5 * rare / (2 * rare + common), 0.0]),
        ("sleep", "in an oak bed", [0.0, 0.0]),  # an observation alone is no match
        ("...", "", [0.0, 0.0]),
    ]
    for action, observation, expected in rows:
        assert lexical_scores(plan, action, observation) == pytest.approx(expected), action


def test_what_the_planner_noted_tells_what_fetching_is_for() -> None:
    plan = parse_numbered("for door: plank, nail\nfor gate: door, hinge\n1. make door\n2. make gate after 1")
    rows = [
        ("get 2 plank", [1]),
        ("get 1 hinge", [2]),
        ("get 1 rope", []),
        ("craft 1 gate using 1 door", [2, 1]),
    ]  # best first
    for action, steps in rows:
        assert [m.step for m in answered(matching.by_words(plan, action, "", None))] == steps, action


def test_a_models_matches_are_the_numbers_it_names() -> None:
    """In the loop of apps; the questions stand in no conversation of the episode."""
    asked: list[str] = []

    def answer(conversation: Conversation) -> str:
        text = conversation.segments[-1].text
        if text.startswith("Plan:\n1. make a") and "Which steps" in text:
            asked.append(text)
            return "Steps 2 and 9, then 2."
        return "1. make a\n2. make b after 1" if conversation.role == "planner" else "get 1 x"

    agent = Agent(ScriptedModel(answer), Planner(BRIEF), Executor(BRIEF), limits=Limits(turns=2), replan=never)
    agent.matcher = matching.by_model()
    episode = agent.run(CHAIN)
    assert [(t.verdict, t.step, t.evidence) for t in episode.turns] == [(EARLY, 2, "the model says so")] * 2
    assert len(asked) == 2 and "Action: get 1 x\nResult: Got 1 x" in asked[0]
    assert not any("Which steps" in s.text for c in episode.conversations.values() for s in c.segments)


def test_recoveries() -> None:
    """What serves no step but changes something, right after a refusal or a failed step."""
    nothing, still = [False] * 4, [OPEN] * 4
    rows = [
        (nothing, FINE, still, True, OFF),
        ([True, False, False, False], REFUSED, still, False, ON),
        (nothing, REFUSED, still, False, OFF),  # refused itself
        (nothing, FINE, still, False, OFF),  # changes nothing
        (nothing, FINE, still, True, OFF),  # the trouble is over
        ([True, False, False, False], FINE, [FAILED, OPEN, OPEN, OPEN], True, ON),
        (nothing, FINE, still, True, RECOVERY),
        (nothing, FINE, still, True, OFF),
    ]
    tracker = Tracker(DIAMOND)
    for number, (serves, result, status, effect, verdict) in enumerate(rows):
        assert see(tracker, "act", result, serves, status, effect).verdict is verdict, number


def test_what_is_judged_says_why_and_what_it_completed() -> None:
    tracker = Tracker(DIAMOND)
    judged = see(tracker, "act", FINE, [True, False, False, False], [DONE, DONE, OPEN, FAILED])
    assert judged == ActionJudgement(ON, 1, "the environment's predicate", (1, 2), (4,))
    assert see(tracker, "act", FINE, [False] * 4, [DONE] * 4).evidence == "serves none of 4 steps"
    words = Tracker(DIAMOND)
    assert see(words, "dig up clay", FINE, None, None) == ActionJudgement(ON, 1, "shared words: dig, clay")


def test_a_revision_keeps_what_is_done() -> None:
    tracker = Tracker(DIAMOND)
    see(tracker, "act", FINE, [True, False, False, False], [DONE, DONE, DONE, OPEN])
    assert tracker.done == {1, 2, 3}
    tracker.replan(parse_numbered("1. dig clay\n2. fire many brick after 1\n9. mix mortar\n4. build wall after 2, 9"))
    assert tracker.done == {1}, "2 reads otherwise, 3 has another number"
    assert tracker.ready() == (2, 9) and tracker.served is None and not tracker.failed
    tracker.replan(None)
    assert tracker.ready() == () and not tracker.used_up
    assert see(tracker, "dig clay", FINE, None, None) == ActionJudgement()


WORDS = "get 1 9999 craft using make find at go to take from move put in/on clean with use open rack sink cup a b c x y"
ACTIONS = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(), max_size=40),
    st.lists(st.sampled_from([*WORDS.split(), ",", "\n", "\x00", "٣"])).map(" ".join),
)


@given(st.lists(st.tuples(ACTIONS, ACTIONS), min_size=1, max_size=8), st.sampled_from([None, CHAIN, CUP]))
def test_no_action_and_no_step_text_throws(pairs: list[tuple[str, str]], task: Task | None) -> None:
    texts = [step.replace("\ud800", "?").encode("utf-8", "replace").decode() for step, _ in pairs]
    steps = tuple(PlanStep(id=i, description=text.strip() or "rest") for i, text in enumerate(texts, 1))
    tracker = Tracker(Plan(steps=steps))
    env = plan_aware(task) if task else None
    for _, action in pairs:
        serves = [env.serves(s.description, action) for s in steps] if env else None
        status = [env.step_status(s.description) for s in steps] if env else None
        assert see(tracker, action, FINE, serves, status).verdict in set(Verdict)
        assert tracker.done <= set(range(1, len(steps) + 1))


def test_adherence() -> None:
    episode = Episode(CHAIN, "")
    assert adherence(episode) is None
    for verdict in (ON, None, EARLY, ON, OFF, AGAIN):
        episode.turns.append(Turn(len(episode.turns), "act", "", 0.0, False, verdict))
    assert adherence(episode) == 2 / 5


# -- the judge --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "correctness", "followability", "standardisation"),
    [
        ("1. make a\n2. make b after 1\n3. make c after 2", 5, 5, 5),
        ("1. get 1 x\n2. make a after 1\n3. get y\n4. make b after 2, 3\n5. make c", 5, 5, 5),  # getting is fine
        ("1. make c", 1 + 4 * (0 + 1) / 6, 5, 5),  # shallow: none in order, 1 of 3 named
        ("1. make b\n2. make c", 1 + 4 * (0 + 2) / 6, 5, 5),
        ("1. make a\n2. make c", 1 + 4 * (1 + 2) / 6, 5, 5),
        ("1. make a\n2. make c\n3. make b\n4. make c", 5, 5, 5),  # the second time it can be made
        ("1. make c\n2. make b\n3. make a", 1 + 4 * (1 + 3) / 6, 5, 5),  # wrong order: only a is reached
        ("1. make a\n2. make c\n3. make b", 1 + 4 * (2 + 3) / 6, 5, 5),
        ("1. make a after 2\n2. make b\n3. make c", 5, 1 + 4 * 2 / 3, 5),  # 1 waits for what comes later
        ("1. make a\n2. have fun\n3. make b\n4. make c", 5, 1 + 4 * 3 / 4, 5),
        ("1. win", 1, 1, 5),
        ("\n".join(f"{i}. make {'abc'[i % 3 - 1]}" for i in range(1, 17)), 5, 5, 1 + 4 * 8 / 16),  # 8 steps are plenty
    ],
)
def test_scores_by_hand(text: str, correctness: float, followability: float, standardisation: float) -> None:
    score = judge_plan(parse_numbered(text), plan_aware(CHAIN))
    found = (score.correctness, score.followability, score.standardisation)
    assert found == pytest.approx((correctness, followability, standardisation))
    assert score.mean == pytest.approx((correctness + followability + standardisation) / 3)
    assert score.passes == (correctness >= 4 and followability == standardisation == 5)


def test_a_missing_plan_scores_worst() -> None:
    assert judge_plan(None, plan_aware(CHAIN)) == PlanScore(1.0, 1.0, 1.0)


def test_what_passes() -> None:
    assert PlanScore(4.0, 5.0, 5.0).passes  # mean 4.67
    assert not PlanScore(3.9, 5.0, 5.0).passes
    assert not PlanScore(5.0, 4.9, 5.0).passes and not PlanScore(5.0, 5.0, 4.9).passes


def test_household_plans_are_judged() -> None:
    env = plan_aware(CUP)
    good = "1. find cup at rack 1\n2. clean cup at sink 1 after 1\n3. put cup in box 1 after 2"
    assert judge_plan(parse_numbered(good), env) == PlanScore(5, 5, 5)
    guess = good.replace("rack 1", "shelf 1")  # it cannot know
    assert judge_plan(parse_numbered(guess), env) == PlanScore(5, 5, 5)
    skips = judge_plan(parse_numbered("1. find cup at rack 1\n3. put cup in box 1 after 1"), env)
    assert skips.correctness == pytest.approx(1 + 4 * (1 + 2) / 6) and not skips.passes
    wrong = judge_plan(parse_numbered(good.replace("box 1", "rack 1")), env)  # put into the wrong kind of place
    assert (wrong.correctness, wrong.followability) == pytest.approx((1 + 4 * (2 + 2) / 6, 1 + 4 * 2 / 3))


@pytest.mark.parametrize(
    "task", [CHAIN, TREE, CUP, *(Task(env="crafting", params={"seed": s, "depth": 4}) for s in range(20))]
)
def test_oracle_plans_pass(task: Task) -> None:
    env = plan_aware(task)
    assert judge_plan(env.oracle_plan(), env) == PlanScore(5, 5, 5)  # type: ignore[attr-defined]


def test_any_order_that_works_passes() -> None:
    assert judge_plan(parse_numbered("1. make b\n2. make a\n3. make c after 1, 2"), plan_aware(TREE)).passes


# -- policies ---------------------------------------------------------------------------------


def turns(spec: str) -> list[Turn]:
    """``a``: an action that led to state a; ``A``: one that was refused there; ``.``: state unknown."""
    return [Turn(i, "act", "", 0.0, c.isupper(), None, None, c.lower().strip(".")) for i, c in enumerate(spec)]


@pytest.mark.parametrize(
    ("spec", "idle"),
    [("", 0), ("a", 0), ("A", 1), ("ab", 0), ("aa", 1), ("aaa", 2), ("aab", 0), ("abbB", 2), ("aAbBB", 2), ("AAA", 3),
     ("..", 0), ("a..", 0), ("aba", 0), ("a.a", 0)],
)  # fmt: skip
def test_idle_turns(spec: str, idle: int) -> None:
    episode = Episode(CHAIN, "")
    episode.turns = turns(spec)
    assert idle_turns(episode) == idle


def played(spec: str, plans: int = 1) -> Episode:
    episode = Episode(CHAIN, "", turns=turns(spec))
    episode.plans = [PlanRecord(0, DIAMOND)] * plans
    return episode


def test_when_a_revision_is_asked_for() -> None:
    ask = on_failure(cap=4, stuck_after=3)
    tracker = Tracker(DIAMOND)
    assert ask(tracker, played("abc")) is None
    assert ask(tracker, played("aaaa")) == ReplanReason(kind=ReplanKind.STUCK)
    assert ask(tracker, played("aaa")) is None and ask(tracker, played("aaaaa")) is None, "once, not at every idle turn"
    tracker.failed = {4}
    assert ask(tracker, played("abc")) is None, "it is not the turn of 4"
    tracker.failed = {1}
    assert ask(tracker, played("aaaa")) == ReplanReason(kind=ReplanKind.STEP_FAILED, step=1), "failed goes before stuck"
    assert ask(tracker, played("abc", plans=4)) is not None
    assert ask(tracker, played("abc", plans=5)) is None, "the first plan and four revisions"
    tracker.failed, tracker.done = set(), {1, 2, 3, 4}
    assert ask(tracker, played("abc")) == ReplanReason(kind=ReplanKind.USED_UP)
    assert never(tracker, played("aaaa")) is None
    assert ask(Tracker(None), played("aaaa")) is None, "without a plan there is nothing to revise"


def judged(spec: str, plans: Sequence[PlanRecord] = (PlanRecord(0, DIAMOND),)) -> Episode:
    """``n`` on plan, ``o`` off, ``e`` premature, ``r`` repeated, ``u`` recovery; a digit: on plan and completes it."""
    known = {"n": ON, "o": OFF, "e": EARLY, "r": AGAIN, "u": RECOVERY}
    rows = [
        Turn(i, "act", "", 0.0, False, known.get(c, ON), done=(int(c),) if c.isdigit() else ())
        for i, c in enumerate(spec)
    ]
    return Episode(CHAIN, "", turns=rows, plans=list(plans))


@pytest.mark.parametrize(
    ("ask", "kind", "yes", "no"),
    [
        (replan.every(), "look", ["n", "nn", "o"], []),
        (replan.every(3), "look", ["nnn", "nnnnnn"], ["n", "nnnn"]),
        (replan.off_plan(2), "off plan", ["oo", "noo", "oooo"], ["", "o", "ono", "ooo", "oon"]),
        (replan.no_progress(2), "no progress", ["nn", "1nn", "oe", "nnnn"], ["", "n", "1n", "nnn", "n1"]),
        (replan.used_up, "used up", [], ["1234", "n"]),
        (never, "", [], ["oooo"]),
    ],
)
def test_policies_by_hand(ask: replan.ReplanPolicy, kind: str, yes: list[str], no: list[str]) -> None:
    tracker = Tracker(DIAMOND)
    for spec in yes:
        assert ask(tracker, judged(spec)) == ReplanReason(kind=ReplanKind(kind)), spec
        assert ask(Tracker(None), judged(spec)) is None, "no plan, nothing to revise"
    for spec in no:
        assert ask(tracker, judged(spec)) is None, spec


def test_policies_look_at_the_plan_in_force_alone() -> None:
    since = [PlanRecord(0, DIAMOND), PlanRecord(3, DIAMOND, kept=True)]
    assert replan.off_plan(2)(Tracker(DIAMOND), judged("ooo", since)) is None
    assert replan.off_plan(2)(Tracker(DIAMOND), judged("ooooo", since)) is not None


def test_a_contradiction_need_not_wait_for_its_turn() -> None:
    tracker = Tracker(DIAMOND)
    tracker.failed = {3, 4}
    assert replan.contradicted(tracker, judged("n")) == ReplanReason(kind=ReplanKind.CONTRADICTED, step=3)
    assert replan.failed_step(tracker, judged("n")) is None


def test_policies_combine_in_order_and_are_capped() -> None:
    tracker = Tracker(DIAMOND)
    tracker.failed = {1}
    both = replan.any_of(replan.off_plan(1), replan.failed_step)
    assert [both(tracker, judged(s)).kind for s in "on"] == ["off plan", "failed"]  # type: ignore[union-attr]
    twice = replan.capped(replan.every(), 2)
    asked = [twice(tracker, judged("n", [PlanRecord(0, DIAMOND)] * n)) is not None for n in (1, 2, 3)]
    assert asked == [True, True, False]


def test_what_the_named_policies_ask() -> None:
    def kinds(failed: set[int]) -> dict[str, str | None]:
        tracker = Tracker(DIAMOND)
        tracker.failed = failed
        asked = {name: ask(tracker, judged("n")) for name, ask in replan.REPLAN_POLICIES.items()}
        return {name: reason and reason.kind for name, reason in asked.items()}

    assert kinds(set()) == {"never": None, "on_failure": None, "every_turn": "look", "every_turn_told": "look"}
    assert kinds({1}) == {"never": None, "on_failure": "failed", "every_turn": "look", "every_turn_told": "failed"}
    assert set(replan.REPLAN_POLICIES) == set(get_args(replan.ReplanName))


def test_every_reason_has_words_for_the_planner_and_the_reader() -> None:
    for kind in ReplanKind:
        reason = ReplanReason(kind=kind, step=2)
        for prompts in STYLES.values():
            assert prompts.revise(judged("n"), reason, ()).strip()
        assert "because" in transcript(judged("n", [PlanRecord(0, DIAMOND), PlanRecord(1, DIAMOND, reason)]))


# -- scores -----------------------------------------------------------------------------------


def test_scores_by_counting() -> None:
    revised = parse_numbered(
        "2. fire brick\n5. buy mortar\n4. build wall after 2, 5"
    )  # 1 done, 2 rewired, 3 out, 5 in, 4 rewired
    found = scores(
        judged("1nooeor2u", [PlanRecord(0, DIAMOND), PlanRecord(4, None, kept=True), PlanRecord(5, revised)])
    )
    assert found.verdicts == {ON: 3, OFF: 3, EARLY: 1, AGAIN: 1, RECOVERY: 1}
    assert (found.actions, found.adherence, found.violations, found.drift) == (9, 3 / 9, 1, 2)
    assert (found.coverage, found.revisions, found.edits, found.stability) == (1 / 3, 1, 4, 4.0)
    bare = scores(Episode(CHAIN, ""))
    assert (bare.actions, bare.adherence, bare.coverage, bare.stability) == (0, None, None, None)


@given(st.text("noeru1234", max_size=30))
def test_scores_agree_with_the_turns(spec: str) -> None:
    episode = judged(spec)
    found = scores(episode)
    assert found.adherence == adherence(episode)
    assert found.actions == len(spec)
    assert found.drift == max((len(run) for run in re.findall("o+", spec)), default=0)
    assert found.coverage == len(set(re.findall(r"\d", spec))) / 4
