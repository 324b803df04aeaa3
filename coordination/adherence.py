"""How closely execution follows the plan: a verdict with evidence for each action, and scores of an episode.

Each action takes time linear in the plan, independent of the number of actions before it.
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
class ActionJudgement:
    """How an action relates to the plan: verdict, served step, evidence, steps it completed, steps failed after it."""

    verdict: Verdict | None = None
    step: int | None = None
    evidence: str = ""
    done: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()


class Tracker:
    """Tracks the steps of the plan in force during one episode. A done step stays done."""

    def __init__(self, plan: Plan | None) -> None:
        self.plan: Plan | None = None
        self.done: set[int] = set()
        self.failed: set[int] = set()
        self.served: int | None = None
        self.last_failed = False  # the last action was refused, or a step was failed after it
        self.replan(plan)

    def replan(self, plan: Plan | None) -> None:
        """Switch to a new plan; done steps that keep their id and text stay done."""
        self.done = carried(self.plan, plan, self.done)
        self.plan = plan
        self.graph = PlanGraph(plan) if plan else None
        self.failed = set()
        self.served = None

    def revise(self, record: PlanRecord) -> None:
        """Apply a recorded answer of the planner."""
        if not record.kept:
            self.replan(record.plan)

    def restore(self, turn: Turn) -> None:
        """Apply a recorded turn with its recorded judgement."""
        self.done |= set(turn.done)
        self.failed = set(turn.failed)
        self.served = turn.step if turn.step is not None else self.served
        self.last_failed = self.plan is not None and (turn.refused or bool(turn.failed))

    def ready(self) -> tuple[int, ...]:
        """Ids of the ready steps: not done, with all dependencies done."""
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
    ) -> ActionJudgement:
        """Judge one action and update the step statuses.

        ``matches``: the steps that the action serves, from a matcher. ``status``: the environment's status of every
        step after the action; if ``None``, a served step counts as done when a later action that is not refused serves
        another step. ``effect``: False if the action is known to have changed nothing.
        """
        self.failed = set()
        if self.plan is None:
            self.served = None
            return ActionJudgement()
        last_failed, self.last_failed = self.last_failed, result.refused
        verdict, match = self._verdict(matches)
        if match is None and last_failed and effect and not result.refused:
            verdict = Verdict.UNPLANNED_RECOVERY
        before, known = self.served, set(self.done)
        self.served = match.step if match else self.served
        if status is not None:
            now = {step.id: s for step, s in zip(self.plan.steps, status, strict=True)}
            finished = {i for i, s in now.items() if s is StepStatus.DONE}
            while newly := finished & set(self.ready()):  # ready steps only: two steps may have the same text
                self.done |= newly
            self.failed |= {i for i, s in now.items() if s is StepStatus.FAILED}
        elif before is not None and before != self.served and not result.refused:
            self.done.add(before)
        if result.refused and verdict is Verdict.ON_PLAN and match is not None:
            self.failed.add(match.step)
        self.failed -= self.done
        self.last_failed |= bool(self.failed)
        return ActionJudgement(
            verdict,
            match.step if match else None,
            match.evidence if match else f"serves none of {len(self.plan.steps)} steps",
            tuple(sorted(self.done - known)),
            tuple(sorted(self.failed)),
        )

    def _verdict(self, matches: Sequence[Match]) -> tuple[Verdict, Match | None]:
        """The verdict and match; *on plan* precedes *premature*, then *repeated*; ties go to the matcher's first."""
        ready = self.ready()
        kinds = (
            (Verdict.ON_PLAN, [m for m in matches if m.step in ready]),
            (Verdict.PREMATURE, [m for m in matches if m.step not in ready and m.step not in self.done]),
            (Verdict.REPEATED, [m for m in matches if m.step in self.done]),
        )
        return next(((verdict, found[0]) for verdict, found in kinds if found), (Verdict.OFF_PLAN, None))


def carried(before: Plan | None, after: Plan | None, done: set[int]) -> set[int]:
    """The done steps that stay done under the next plan: those that keep their id and text."""
    if before is None or after is None:
        return set()
    old = {(step.id, step.description) for step in before.steps if step.id in done}
    return {step.id for step in after.steps if (step.id, step.description) in old}


# -- scores -------------------------------------------------------------------------------------


@dataclass
class Scores:
    """Running scores of how closely an episode follows its plans; each action takes constant time.

    ``verdicts``: counts of the actions under a plan. ``drift``: the longest run of actions that served no step.
    ``revisions``: as ``Episode.revisions`` counts them. ``edits``: the sum of their edit distances; a plan that follows
    no plan counts all its steps. ``done``: the done steps of the plan in force.
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
        """Apply an answer of the planner: a new plan, or *keep*."""
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
        """The number of actions under a plan."""
        return sum(self.verdicts.values())

    @property
    def adherence(self) -> float | None:
        """Share of the actions under a plan that were on plan; ``None`` without any."""
        return self.verdicts[Verdict.ON_PLAN] / self.actions if self.actions else None

    @property
    def coverage(self) -> float | None:
        """Share of done steps of the plan in force; ``None`` without a plan."""
        return len(self.done) / len(self.plan.steps) if self.plan else None

    @property
    def violations(self) -> int:
        """The number of actions that served a step before its dependencies were done."""
        return self.verdicts[Verdict.PREMATURE]

    @property
    def stability(self) -> float | None:
        """Mean edit distance per revision, 0 being the most stable; ``None`` without revisions."""
        return self.edits / self.revisions if self.revisions else None


def scores(episode: Episode) -> Scores:
    """The scores of a recorded episode."""
    found = Scores()
    for span in episode.plan_spans():
        found.revise(span.record)
        for turn in span.turns:
            found.add(turn)
    return found


def adherence(episode: Episode) -> float | None:
    """Share of an episode's actions under a plan that were on plan; ``None`` without any."""
    verdicts = [turn.verdict for turn in episode.turns if turn.verdict is not None]
    return sum(v is Verdict.ON_PLAN for v in verdicts) / len(verdicts) if verdicts else None
