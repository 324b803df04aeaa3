"""Adherence by hand-made cases: verdicts, what counts as done, recoveries, and scores by counting."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracking import (
    AGAIN,
    CHAIN,
    CUP,
    DIAMOND,
    DONE,
    EARLY,
    FAILED,
    FINE,
    OFF,
    ON,
    OPEN,
    RECOVERY,
    REFUSED,
    answered,
    judged,
    plan_aware,
    see,
)

from hiplan.agent import Agent
from hiplan.coordination import Limits, Tracker, matching, never, scores
from hiplan.coordination.adherence import ActionJudgement, adherence
from hiplan.coordination.matching import lexical_scores
from hiplan.executors import Executor
from hiplan.formats import parse_numbered
from hiplan.model import ScriptedModel
from hiplan.plan import Plan, PlanStep
from hiplan.planners import Planner
from hiplan.prompts import BRIEF
from hiplan.task import Task
from hiplan.trace import Conversation, Episode, PlanRecord, Turn, Verdict

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
    assert [(t.verdict, t.step, t.evidence) for t in episode.turns] == [(EARLY, 2, "named by the model")] * 2
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
