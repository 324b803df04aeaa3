"""Whether the acting follows the plan: a verdict per action, with evidence, and scores of the whole.

Each action costs time in proportion to the plan, never to the actions before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hiplan.coordination.graph import PlanGraph
from hiplan.coordination.matching import Match
from hiplan.plan import Plan, StepStatus, diff
from hiplan.task import StepResult
from hiplan.trace import Episode, PlanRecord, Turn, Verdict


@dataclass(frozen=True)
class Judged:
    """What an action was to the plan: the step it served, why, and the steps it completed or left failed."""

    verdict: Verdict | None = None
    step: int | None = None
    evidence: str = ""
    done: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()


class Tracker:
    """The state of one episode's acting against the plan in force. Once done, a step stays done."""

    def __init__(self, plan: Plan | None) -> None:
        self.plan: Plan | None = None
        self.done: set[int] = set()
        self.failed: set[int] = set()
        self.served: int | None = None
        self.trouble = False  # the last action was refused, or left a step failed
        self.replan(plan)

    def replan(self, plan: Plan | None) -> None:
        """A new plan takes effect; steps that keep their id and text stay done."""
        self.done = carried(self.plan, plan, self.done)
        self.plan = plan
        self.graph = PlanGraph(plan) if plan else None
        self.failed = set()
        self.served = None

    def revise(self, record: PlanRecord) -> None:
        """Take in a recorded answer of the planner."""
        if not record.kept:
            self.replan(record.plan)

    def recall(self, turn: Turn) -> None:
        """Take in a recorded turn as it was judged then."""
        self.done |= set(turn.done)
        self.failed = set(turn.failed)
        self.served = turn.step if turn.step is not None else self.served
        self.trouble = self.plan is not None and (turn.refused or bool(turn.failed))

    def ready(self) -> tuple[int, ...]:
        """Ids of the steps that could be worked on now."""
        return self.graph.ready(self.done) if self.graph else ()

    @property
    def used_up(self) -> bool:
        """Whether every step of the plan is done."""
        return self.plan is not None and len(self.done) == len(self.plan.steps)

    def failed_step(self) -> int | None:
        """The first ready step that has failed."""
        return next((i for i in self.ready() if i in self.failed), None)

    def observe(
        self,
        result: StepResult,
        matches: Sequence[Match],
        status: Sequence[StepStatus] | None = None,
        effect: bool = True,
    ) -> Judged:
        """Take in one action.

        ``matches``: the steps it serves, as a matcher found. ``status``: what the environment says of every step after
        it; without that, a served step counts as done once an action that was not refused serves another one.
        ``effect``: whether the action changed anything, as far as is known.
        """
        self.failed = set()
        if self.plan is None:
            self.served = None
            return Judged()
        trouble, self.trouble = self.trouble, result.refused
        verdict, match = self._verdict(matches)
        if match is None and trouble and effect and not result.refused:
            verdict = Verdict.UNPLANNED_RECOVERY
        before, known = self.served, set(self.done)
        self.served = match.step if match else self.served
        if status is not None:
            now = {step.id: s for step, s in zip(self.plan.steps, status, strict=True)}
            finished = {i for i, s in now.items() if s is StepStatus.DONE}
            while newly := finished & set(self.ready()):  # two steps may read the same: only in their turn
                self.done |= newly
            self.failed |= {i for i, s in now.items() if s is StepStatus.FAILED}
        elif before is not None and before != self.served and not result.refused:
            self.done.add(before)
        if result.refused and verdict is Verdict.ON_PLAN and match is not None:
            self.failed.add(match.step)
        self.failed -= self.done
        self.trouble |= bool(self.failed)
        return Judged(
            verdict,
            match.step if match else None,
            match.evidence if match else f"serves none of {len(self.plan.steps)} steps",
            tuple(sorted(self.done - known)),
            tuple(sorted(self.failed)),
        )

    def _verdict(self, matches: Sequence[Match]) -> tuple[Verdict, Match | None]:
        """On plan goes before premature, premature before repeated; of equals, the matcher's first."""
        ready = self.ready()
        kinds = (
            (Verdict.ON_PLAN, [m for m in matches if m.step in ready]),
            (Verdict.PREMATURE, [m for m in matches if m.step not in ready and m.step not in self.done]),
            (Verdict.REPEATED, [m for m in matches if m.step in self.done]),
        )
        return next(((verdict, found[0]) for verdict, found in kinds if found), (Verdict.OFF_PLAN, None))


def carried(before: Plan | None, after: Plan | None, done: set[int]) -> set[int]:
    """The done steps that stay done in the next plan: those that keep their id and text."""
    if before is None or after is None:
        return set()
    old = {(step.id, step.description) for step in before.steps if step.id in done}
    return {step.id for step in after.steps if (step.id, step.description) in old}


# -- scores -------------------------------------------------------------------------------------


@dataclass
class Scores:
    """How an episode kept to its plans, so far; ``add`` and ``revise`` take constant time per action.

    Counts of actions under a plan by verdict. ``drift``: the longest run of actions that served no step.
    ``revisions``: as ``hiplan.trace.revisions`` counts them; ``edits``: the sum of their edit distances, where a plan
    after none adds all its steps. ``done``: steps of the plan in force.
    """

    verdicts: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(Verdict, 0))
    drift: int = 0
    revisions: int = 0
    edits: int = 0
    plan: Plan | None = None
    done: set[int] = field(default_factory=set)
    _run: int = 0
    _asked: bool = False

    def add(self, turn: Turn) -> None:
        """Count one action."""
        if turn.verdict is None:
            return
        self.verdicts[turn.verdict] += 1
        self._run = self._run + 1 if turn.verdict is Verdict.OFF_PLAN else 0
        self.drift = max(self.drift, self._run)
        self.done.update(turn.done)

    def revise(self, record: PlanRecord) -> None:
        """Take in a plan, or an answer that kept it."""
        first, self._asked = not self._asked, True
        if record.kept:
            return
        if record.plan is not None and not first:
            self.revisions += 1
            before, after = self.plan, record.plan
            self.edits += diff(before, after, self.done).distance if before else len(after.steps)
        self.done = carried(self.plan, record.plan, self.done)
        self.plan = record.plan

    @property
    def actions(self) -> int:
        """Actions under a plan."""
        return sum(self.verdicts.values())

    @property
    def adherence(self) -> float | None:
        """Share of the actions that were on plan; ``None`` without any."""
        return self.verdicts[Verdict.ON_PLAN] / self.actions if self.actions else None

    @property
    def coverage(self) -> float | None:
        """Share of the steps of the plan in force that are done; ``None`` without a plan."""
        return len(self.done) / len(self.plan.steps) if self.plan else None

    @property
    def violations(self) -> int:
        """Actions for steps whose turn had not come."""
        return self.verdicts[Verdict.PREMATURE]

    @property
    def stability(self) -> float | None:
        """Mean edit distance of a revision, 0 for the most stable; ``None`` without revisions."""
        return self.edits / self.revisions if self.revisions else None


def scores(episode: Episode) -> Scores:
    """The scores of a whole episode."""
    found = Scores()
    for phase in episode.phases():
        found.revise(phase.record)
        for turn in phase.turns:
            found.add(turn)
    return found


def adherence(episode: Episode) -> float | None:
    """Share of the actions taken under a plan that were on plan; ``None`` without any."""
    verdicts = [turn.verdict for turn in episode.turns if turn.verdict is not None]
    return sum(v is Verdict.ON_PLAN for v in verdicts) / len(verdicts) if verdicts else None
