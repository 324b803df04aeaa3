"""Plan sources. A source returns a planner for each task, or ``None`` if it has no plan for the task.

All episodes of a group share the task and the given plan. Otherwise differences between plans would count as the
executor's advantage.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from hiplan.coordination import Judge, Limits, PlanScore, Submission
from hiplan.envs import TaskSuite
from hiplan.errors import ConfigError, PlanFormatError
from hiplan.formats import parse_numbered
from hiplan.model import derive_seed
from hiplan.plan import Plan
from hiplan.planners import FixedPlanner, NoPlanner, OraclePlanner, PlannerProtocol
from hiplan.sampler import Job, Sampler
from hiplan.task import Task
from hiplan.trace import Episode, Verdict
from hiplan.training.config import PlanSourceName, TrainConfig

PlanSource = Callable[[Sequence[Task], int], list[PlannerProtocol | None]]


def stage_source(name: PlanSourceName, sampler: Sampler, judge: Judge, plan_file: PlanSource | None) -> PlanSource:
    """The source with the name in a stage's ``plans``; ``plan_file``: the source of the run's plan file."""
    match name:
        case "self":
            return always(sampler.planner)
        case "oracle":
            return always(OraclePlanner())
        case "none":
            return always(NoPlanner())
        case "hindsight":
            return hindsight(sampler)
        case "filtered":
            return filtered(sampler, judge)
        case "file":
            assert plan_file is not None
            return plan_file


def load_plan_file(config: TrainConfig, stage: int) -> tuple[PlanSource | None, list[Task]]:
    """The plan file's source and tasks, if ``stage`` or a later one needs them.

    Raises ``ConfigError`` if there is no such file or it cannot be used.
    """
    needed = [one.name for one in config.stages[stage:] if one.plans == "file"]
    if needed and not config.plan_file:
        raise ConfigError(f"the stage {needed[0]!r} takes its plans from a file; set train.plan_file")
    return from_file(Path(config.plan_file)) if needed and config.plan_file else (None, [])


def demonstrations(suite: TaskSuite, sampler: Sampler, count: int, seed: int) -> list[Episode]:
    """Oracle demonstrations of ``count`` training tasks. Raises ``ConfigError`` if the oracle solves none of them."""
    from hiplan.training.warmstart import oracle_demonstrations  # trl takes seconds to import

    rng = random.Random(derive_seed(seed, "warm start"))
    return oracle_demonstrations([suite.draw(rng) for _ in range(count)], sampler)


def always(planner: PlannerProtocol) -> PlanSource:
    """The same planner for every task."""
    return lambda tasks, seed: [planner for _ in tasks]


def hindsight(sampler: Sampler, tries: int = 4) -> PlanSource:
    """The plan of a successful episode of the agent itself, of ``tries`` per task (``merged_plan``); never revised."""

    def source(tasks: Sequence[Task], seed: int) -> list[PlannerProtocol | None]:
        episodes = _attempts(sampler, tasks, seed, "hindsight", tries)
        plans: list[PlannerProtocol | None] = []
        for i in range(len(tasks)):
            won = [merged_plan(e) for e in episodes[i * tries : (i + 1) * tries] if e.success]
            plans.append(next((FixedPlanner(plan) for plan in won if plan is not None), None))
        return plans

    return source


def merged_plan(episode: Episode) -> Plan | None:
    """One plan for the whole episode: the served steps of earlier plans, followed by the last plan.

    A revision contains only the remaining steps. Failed steps are left out, and dependencies on steps that are not
    earlier in the plan are removed.
    """
    if episode.plan is None:
        return None
    failed = {record.reason.step for record in episode.plans if record.reason is not None}
    served = {turn.step for turn in episode.turns if turn.verdict is Verdict.ON_PLAN} - failed
    known = {step.id: step for record in episode.plans if record.plan for step in record.plan.steps}
    left = {step.id for step in episode.plan.steps}
    before = [step for step in known.values() if step.id in served - left]
    earlier = [tuple(i for i in step.after if i in {s.id for s in before[:k]}) for k, step in enumerate(before)]
    done = tuple(step.model_copy(update={"after": after}) for step, after in zip(before, earlier, strict=True))
    return episode.plan.model_copy(update={"steps": done + episode.plan.steps, "revision": 0})


def filtered(sampler: Sampler, judge: Judge, tries: int = 4) -> PlanSource:
    """The agent's own first plan that the judge passes (PilotRL's filter), of ``tries`` per task; never revised."""
    planning_only = replace(sampler, limits=Limits(turns=0))

    def source(tasks: Sequence[Task], seed: int) -> list[PlannerProtocol | None]:
        episodes = _attempts(planning_only, tasks, seed, "filter", tries)
        scores = judge([Submission(e.task, e.observation, e.plan) for e in episodes])
        passed = [isinstance(score, PlanScore) and score.passes for score in scores]
        plans: list[PlannerProtocol | None] = []
        for i in range(0, len(episodes), tries):
            good = [e.plan for e, p in zip(episodes[i : i + tries], passed[i : i + tries], strict=True) if p and e.plan]
            plans.append(FixedPlanner(good[0]) if good else None)
        return plans

    return source


def _attempts(sampler: Sampler, tasks: Sequence[Task], seed: int, name: str, tries: int) -> list[Episode]:
    """``tries`` episodes of the agent per task, grouped by task."""
    planner, executor = sampler.planner, sampler.executor
    return sampler.run(
        [Job(t, planner, executor, derive_seed(seed, name, t.id, k)) for t in tasks for k in range(tries)]
    )


class PlanFileLine(BaseModel):
    """One line of a plan file: a task, and a plan for it as numbered text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task
    plan: str


def from_file(path: Path) -> tuple[PlanSource, list[Task]]:
    """The plans and tasks of a JSONL file with lines ``{"task": {"env": ..., "params": {...}}, "plan": "1. ..."}``.

    Raises ``ConfigError`` if the file cannot be read; for an invalid line, the message has its number.
    """
    plans: dict[str, FixedPlanner] = {}
    tasks: list[Task] = []
    try:
        with path.open(encoding="utf-8") as file:
            lines = list(file)
    except OSError:
        raise ConfigError(f"no plan file at {str(path)!r}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"the plan file {str(path)!r} is not UTF-8 text: {error.reason}") from None
    for number, line in enumerate(lines, 1):
        try:
            entry = PlanFileLine.model_validate_json(line)
            plans[entry.task.id] = FixedPlanner(parse_numbered(entry.plan))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ConfigError(_unusable(path, number, f"{place}: {first['msg']}" if place else first["msg"])) from None
        except PlanFormatError as error:
            raise ConfigError(_unusable(path, number, str(error))) from None
        tasks.append(entry.task)
    if not tasks:
        raise ConfigError(f"the plan file {str(path)!r} is empty; expected one task and plan per line")
    return lambda asked, seed: [plans.get(task.id) for task in asked], tasks


def _unusable(path: Path, number: int, why: str) -> str:
    return f"line {number} of the plan file {str(path)!r} cannot be used: {why}"
