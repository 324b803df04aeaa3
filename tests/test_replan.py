"""Replan policies by hand: when a revision is asked for, why, and how often."""

from __future__ import annotations

from typing import get_args

import pytest
from tracking import CHAIN, DIAMOND, judged

from hiplan.coordination import Tracker, never, on_failure, replan
from hiplan.coordination.replan import idle_turns
from hiplan.plan import ReplanKind, ReplanReason
from hiplan.prompts import STYLES
from hiplan.report import transcript
from hiplan.trace import Episode, PlanRecord, Turn


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
