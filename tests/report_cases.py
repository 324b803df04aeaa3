"""What tests of reports tell of: real episodes, one made by hand, hostile text, and the metrics of a run."""

from functools import cache
from typing import Any

from hiplan.envs import make_env
from hiplan.executors import OracleExecutor
from hiplan.model import ScriptedModel
from hiplan.plan import Plan, PlanStep, ReplanKind, ReplanReason
from hiplan.planners import OraclePlanner, PlannerProtocol
from hiplan.sampler import Job, Sampler
from hiplan.task import Task
from hiplan.trace import Episode, PlanRecord, StopReason, Turn, Verdict

HOSTILE = (
    "<script>alert('x')</script> [red]paint[/red] [/] \x1b[31mred\x1b[0m {{ 7 * 7 }} $\\frac$\nRevision 9  all good"
)


def play(planner: PlannerProtocol | None = None, texts: tuple[str, ...] = (), **task: Any) -> Episode:
    env = task.pop("env", "household")
    job = Job(Task(env=env, params=task), planner or OraclePlanner(), OracleExecutor())
    return Sampler(ScriptedModel(texts), make_env).run([job])[0]


@cache
def household() -> Episode:
    """Looks for the mug in four places: three revisions."""
    return play(seed=3, kind="clean", places=5)


@cache
def crafting() -> Episode:
    """A plan whose steps branch; no revision."""
    return play(env="crafting", seed=3, depth=3)


def steps(*lines: tuple[int, str, tuple[int, ...]]) -> Plan:
    return Plan(steps=tuple(PlanStep(id=i, description=text, after=after) for i, text, after in lines))


def turn(
    index: int, step: int | None, verdict: Verdict = Verdict.ON_PLAN, refused: bool = False, done: tuple[int, ...] = (),
    failed: tuple[int, ...] = (),
) -> Turn:  # fmt: skip
    return Turn(index, f"act {index}", f"seen {index}", 0.0, refused, verdict, step, done=done, failed=failed)


FIRST = steps((1, "get wood", ()), (2, "get stone", ()), (3, "make axe", (1, 2)), (4, "sell axe", (3,)))
SECOND = steps((1, "get wood", ()), (2, "get a big stone", ()), (5, "make hammer", (1, 2)), (3, "make axe", (5,)))


def by_hand() -> Episode:
    """Wood, then stone, then the axe fails; the plan is kept, then revised; the episode gets stuck."""
    failed = ReplanReason(kind=ReplanKind.STEP_FAILED, step=3)
    return Episode(
        Task(env="forest"),
        "A forest.",
        plans=[PlanRecord(0, FIRST), PlanRecord(3, FIRST, failed, kept=True), PlanRecord(4, SECOND, failed)],
        turns=[
            turn(0, 1, done=(1,)),
            turn(1, 2, done=(2,)),
            turn(2, 3, refused=True, failed=(3,)),
            turn(3, 3, refused=True, failed=(3,)),
            turn(4, 2, done=(2,)),
            turn(5, 5, refused=True, failed=(5,)),
            turn(6, 3, Verdict.PREMATURE),
            turn(7, None, Verdict.OFF_PLAN),
        ],
        stop=StopReason.STUCK,
    )


def hostile(episode: Episode) -> Episode:
    """The same episode, with hostile text wherever a model or an environment writes."""
    copy = Episode.from_json(episode.to_json())
    copy.observation = HOSTILE
    copy.error = HOSTILE
    plan = Plan(goal=HOSTILE[:60], rationale=HOSTILE[:60], steps=(PlanStep(id=1, description=HOSTILE),))
    copy.plans = [PlanRecord(0, plan), PlanRecord(1, plan.model_copy(update={"revision": 1}))]
    copy.turns = [Turn(i, HOSTILE, HOSTILE, 0.0, False, Verdict.ON_PLAN, 1, evidence=HOSTILE) for i in range(3)]
    return copy


def metrics() -> list[dict[str, Any]]:
    """Three stages of four iterations, with evaluations of two agents before and after each."""
    rows: list[dict[str, Any]] = []

    def evaluate(stage: str, iteration: int, success: float) -> None:
        for agent, panel, decoding in (
            ("plan", "dev", "greedy"),
            ("plan", "dev", "t0.3"),
            ("plan", "heldout", "t0.3"),
            ("none", "dev", "greedy"),
        ):
            value = success - 0.1 * (agent == "none") - 0.05 * (decoding == "greedy")
            row = {"kind": "eval", "stage": stage, "iteration": iteration, "panel": panel, "agent": agent}
            row["env_steps"] = 900 * iteration
            rows.append(
                row | {"decoding": decoding, "success": value, "low": value - 0.09, "high": value + 0.09, "n": 64}
            )

    evaluate("base", 0, 0.25)
    for number, stage in enumerate(("executor", "planner", "joint")):
        for iteration in range(4 * number, 4 * number + 4):
            rows.append(
                {
                    "kind": "train",
                    "stage": stage,
                    "iteration": iteration,
                    "success": 0.2 + 0.05 * iteration,
                    "reward_planner": None if stage == "executor" else 0.4,
                    "reward_executor": 0.1 * number,
                    "adherence": None if iteration == 5 else 0.5,
                    "turns": 9.5,
                    "entropy": 0.7,
                    "kl": float("nan"),
                    "zero_variance": 0.25,
                    "episodes": 96,
                    "env_steps": 900 * (iteration + 1),
                }
            )
        evaluate(stage, 4 * number + 4, 0.45 + 0.2 * number)
    return rows
