"""Where given plans come from. A source turns tasks into planners, ``None`` for a task it has no plan for.

The episodes of a group share the task *and* the given plan: otherwise luck with the plan would become the
executor's advantage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from hiplan.coordination import Limits, ReplanPolicy, judge_plan
from hiplan.env import EnvFactory, PlanAware
from hiplan.errors import ConfigError, PlanFormatError
from hiplan.executors import ExecutorProtocol
from hiplan.formats import parse_numbered
from hiplan.model import Decoding, Model, derive_seed
from hiplan.plan import Plan
from hiplan.planners import FixedPlanner, NoPlanner, OraclePlanner, PlannerProtocol
from hiplan.sampler import Job, rollout
from hiplan.task import Task
from hiplan.trace import Episode, Verdict

PlanSource = Callable[[Sequence[Task], int], list[PlannerProtocol | None]]


def always(planner: PlannerProtocol) -> PlanSource:
    """The same planner for every task."""
    return lambda tasks, seed: [planner for _ in tasks]


def oracle() -> PlanSource:
    """The environment's own plans, revised by what the agent has seen."""
    return always(OraclePlanner())


def none() -> PlanSource:
    """No plans: a ReAct agent."""
    return always(NoPlanner())


def hindsight(
    model: Model,
    planner: PlannerProtocol,
    executor: ExecutorProtocol,
    make_env: EnvFactory,
    decoding: Decoding,
    limits: Limits,
    replan: ReplanPolicy | None = None,
    tries: int = 4,
) -> PlanSource:
    """The plan that led through a successful episode of the agent's own (see ``whole_plan``); never revised."""

    def source(tasks: Sequence[Task], seed: int) -> list[PlannerProtocol | None]:
        jobs = [Job(t, planner, executor, derive_seed(seed, "hindsight", t.id, k)) for t in tasks for k in range(tries)]
        episodes = rollout(jobs, model, make_env, decoding, replan, limits)
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


def filtered(
    model: Model,
    planner: PlannerProtocol,
    executor: ExecutorProtocol,
    make_env: EnvFactory,
    decoding: Decoding,
    tries: int = 4,
) -> PlanSource:
    """The agent's own first plans, kept only if the judge passes them (PilotRL's filter)."""

    def source(tasks: Sequence[Task], seed: int) -> list[PlannerProtocol | None]:
        jobs = [Job(t, planner, executor, derive_seed(seed, "filter", t.id, k)) for t in tasks for k in range(tries)]
        episodes = rollout(jobs, model, make_env, decoding, limits=Limits(turns=0))
        plans: list[PlannerProtocol | None] = []
        for i, task in enumerate(tasks):
            env = make_env(task)
            env.reset(task)
            written = [e.plan for e in episodes[i * tries : (i + 1) * tries] if e.plan is not None]
            good = [p for p in written if not isinstance(env, PlanAware) or judge_plan(p, env).passes]
            plans.append(FixedPlanner(good[0]) if good else None)
            env.close()
        return plans

    return source


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
