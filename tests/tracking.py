"""Plans, actions and verdicts by hand, for tests of the coordination layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from hiplan.coordination import Tracker
from hiplan.coordination.adherence import ActionJudgement
from hiplan.coordination.matching import best_known
from hiplan.env import PlanAware
from hiplan.envs import make_env
from hiplan.formats import parse_numbered
from hiplan.plan import StepStatus
from hiplan.task import StepResult, Task
from hiplan.trace import Episode, PlanRecord, Turn, Verdict

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


def judged(spec: str, plans: Sequence[PlanRecord] = (PlanRecord(0, DIAMOND),)) -> Episode:
    """``n`` on plan, ``o`` off, ``e`` premature, ``r`` repeated, ``u`` recovery; a digit: on plan and completes it."""
    known = {"n": ON, "o": OFF, "e": EARLY, "r": AGAIN, "u": RECOVERY}
    rows = [
        Turn(i, "act", "", 0.0, False, known.get(c, ON), done=(int(c),) if c.isdigit() else ())
        for i, c in enumerate(spec)
    ]
    return Episode(CHAIN, "", turns=rows, plans=list(plans))
