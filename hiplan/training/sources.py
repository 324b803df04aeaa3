"""Where given plans come from. A source turns tasks into planners, ``None`` for a task it has no plan for.

The episodes of a group share the task *and* the given plan: otherwise luck with the plan would become the
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


def of_stage(name: PlanSourceName, sampler: Sampler, judge: Judge, filed: PlanSource | None) -> PlanSource:
    """The source that a stage names; ``filed``: that of the run's plan file."""
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
            assert filed is not None
            return filed


def plan_file(config: TrainConfig, stage: int) -> tuple[PlanSource | None, list[Task]]:
    """The plan file's source and tasks, where a stage from ``stage`` on needs them. Raises ``ConfigError``."""
    filed = [one.name for one in config.stages[stage:] if one.plans == "file"]
    if filed and not config.plan_file:
        raise ConfigError(f"the stage {filed[0]!r} takes its plans from a plan file; give one as plan_file")
    return from_file(Path(config.plan_file)) if filed and config.plan_file else (None, [])


def demonstrations(suite: TaskSuite, sampler: Sampler, count: int, seed: int) -> list[Episode]:
    """The oracle's play of so many tasks, written as the model would. Raises ``ConfigError`` where it solves none."""
    from hiplan.training.warmstart import oracle_demonstrations  # trl takes seconds to import

    rng = random.Random(derive_seed(seed, "warm start"))
    return oracle_demonstrations([suite.draw(rng) for _ in range(count)], sampler)


def always(planner: PlannerProtocol) -> PlanSource:
    """The same planner for every task."""
    return lambda tasks, seed: [planner for _ in tasks]


def hindsight(sampler: Sampler, tries: int = 4) -> PlanSource:
    """The plan that led through a successful episode of the agent's own (see ``whole_plan``); never revised."""

    def source(tasks: Sequence[Task], seed: int) -> list[PlannerProtocol | None]:
        episodes = _tried(sampler, tasks, seed, "hindsight", tries)
        plans: list[PlannerProtocol | None] = []
        for i in range(len(tasks)):
            won = [whole_plan(e) for e in episodes[i * tries : (i + 1) * tries] if e.success]
            plans.append(next((FixedPlanner(plan) for plan in won if plan is not None), None))
        return plans

    return source


def whole_plan(episode: Episode) -> Plan | None:
    """One plan for the whole episode: a revision holds only what was left, so the steps served before it come first.

    Steps that failed are left out; a step depends on those before it alone.
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
    """The agent's own first plans, kept only if the judge passes them (PilotRL's filter); never revised."""
    unacted = replace(sampler, limits=Limits(turns=0))

    def source(tasks: Sequence[Task], seed: int) -> list[PlannerProtocol | None]:
        episodes = _tried(unacted, tasks, seed, "filter", tries)
        scores = judge([Submission(e.task, e.observation, e.plan) for e in episodes])
        passed = [isinstance(score, PlanScore) and score.passes for score in scores]
        plans: list[PlannerProtocol | None] = []
        for i in range(0, len(episodes), tries):
            good = [e.plan for e, p in zip(episodes[i : i + tries], passed[i : i + tries], strict=True) if p and e.plan]
            plans.append(FixedPlanner(good[0]) if good else None)
        return plans

    return source


def _tried(sampler: Sampler, tasks: Sequence[Task], seed: int, name: str, tries: int) -> list[Episode]:
    """``tries`` episodes of the agent itself per task, task by task."""
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
    """Plans from a JSONL file of ``{"task": {"env": ..., "params": {...}}, "plan": "1. ..."}``, and its tasks.

    Raises ``ConfigError`` that names the line.
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
        raise ConfigError(f"the plan file {str(path)!r} is empty")
    return lambda asked, seed: [plans.get(task.id) for task in asked], tasks


def _unusable(path: Path, number: int, why: str) -> str:
    return f"line {number} of the plan file {str(path)!r} cannot be used: {why}"
