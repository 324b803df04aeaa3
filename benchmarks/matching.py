"""Measure precision and recall of the matchers on corrupted oracle episodes.

    python benchmarks/matching.py --tasks 200

Each episode has one kind of error, from which the labels of its actions follow
without a matcher: a step's actions come before its dependencies are done
(premature), come again (repeated), or are left out, so that dependent steps are
premature; or actions without any purpose are inserted (off plan).
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hiplan.coordination import Matcher, Tracker, matching
from hiplan.envs import fresh_panel, make_env
from hiplan.executors import OracleExecutor
from hiplan.model import ScriptedModel
from hiplan.plan import Plan, StepStatus
from hiplan.planners import OraclePlanner
from hiplan.sampler import Job, Sampler
from hiplan.task import Task
from hiplan.trace import Verdict

ON, OFF, EARLY, AGAIN = Verdict.ON_PLAN, Verdict.OFF_PLAN, Verdict.PREMATURE, Verdict.REPEATED
CLASSES = (ON, EARLY, AGAIN, OFF)


@dataclass(frozen=True)
class Labelled:
    """An action with the verdict and the step that follow from the corruption."""

    action: str
    verdict: Verdict
    step: int | None


def known_plan(task: Task) -> Plan | None:
    """The oracle's plan; in household with the actual place of the object. ``None`` for tasks with two objects."""
    env: Any = make_env(task)
    env.reset(task)
    plan: Plan = env.oracle_plan()
    if task.env == "crafting":
        return plan
    if task.params.get("kind") == "two":
        return None
    episode = Sampler(ScriptedModel(()), make_env).run([Job(task, OraclePlanner(), OracleExecutor())])[0]
    took = next(turn.action for turn in episode.turns if turn.action.startswith("take ") and not turn.refused)
    thing = plan.steps[0].description.split(" at ")[0]
    first = plan.steps[0].model_copy(update={"description": f"{thing} at {took.split(' from ')[1]}"})
    return plan.model_copy(update={"steps": (first, *plan.steps[1:])})


def blocks(task: Task, plan: Plan) -> list[tuple[int, list[str]]]:
    """Per step, the oracle's actions, in order."""
    env: Any = make_env(task)
    env.reset(task)
    found = []
    for step in plan.steps:
        actions: list[str] = []
        while env.step_status(step.description) is not StepStatus.DONE and len(actions) < 20:
            actions.append(env.oracle_action(step.description))
            env.step(actions[-1])
        found.append((step.id, actions))
    return found


def distractor(task: Task, plan: Plan, rng: random.Random) -> str:
    """A legal action that serves no step of the plan."""
    env: Any = make_env(task)
    env.reset(task)
    if task.env == "crafting":
        needed = {need for item in env.subgoals() for need, _ in env.recipes[item].needs} | set(env.subgoals())
        spare = sorted(item for item in env.recipes if item not in needed and item not in env.subgoals())
        return rng.choice([str(env.recipes[item]) for item in spare] or ["inventory"])
    text = " ".join(step.description for step in plan.steps)
    return "go to " + rng.choice([place for place in env.places if place not in text] or ["hall"])


def corrupted(task: Task, plan: Plan, how: str, rng: random.Random) -> list[Labelled]:
    """The oracle's episode with the corruption ``how``."""
    order = blocks(task, plan)
    waits = [n for n, (i, _) in enumerate(order) if plan.step(i).after]
    done: set[int] = set()
    played: list[Labelled] = []

    def play(number: int, verdict: Verdict = ON) -> None:
        step, actions = order[number]
        played.extend(Labelled(action, verdict, step) for action in actions)
        if verdict is ON:
            done.add(step)

    chosen = rng.choice(waits) if waits else None
    again, odd = rng.randrange(len(order)), rng.randrange(len(order))
    before = order.index(next(b for b in order if b[0] == plan.step(order[chosen][0]).after[-1])) if chosen else None
    for number, (step, actions) in enumerate(order):
        if how == "early" and number == before and chosen is not None:
            play(chosen, EARLY)
        if how == "skipped" and number == before:
            continue
        ready = set(plan.step(step).after) <= done
        play(number, ON if ready else EARLY)
        if how == "repeated" and number == again and actions:
            played.append(Labelled(actions[-1], AGAIN, step))
        if how == "distracted" and number == odd:
            played.append(Labelled(distractor(task, plan, rng), OFF, None))
    return played


def verdicts(task: Task, plan: Plan, actions: Sequence[str], matcher: Matcher, with_status: bool) -> Iterator[Any]:
    """The tracker's judgements of the actions. ``with_status``: the environment reports which steps are done."""
    env: Any = make_env(task)
    env.reset(task)
    tracker = Tracker(plan)
    for action in actions:
        serves = [env.serves(step.description, action) for step in plan.steps]
        result = env.step(action)
        asks = matcher(plan, action, result.observation, serves)
        try:
            next(asks)
        except StopIteration as stop:
            matches = stop.value
        yield tracker.observe(
            result, matches, [env.step_status(s.description) for s in plan.steps] if with_status else None
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200, help="tasks per environment, half of held-out kinds")
    parser.add_argument("--seed", type=int, default=0, help="seed of the tasks and corruptions")
    args = parser.parse_args()
    methods: dict[str, tuple[Matcher, bool]] = {
        "predicate": (matching.by_environment, True),
        "words": (matching.by_words, True),
        "words alone": (matching.by_words, False),
    }
    print("| environment | matcher | actions | " + " | ".join(f"{c} P / R" for c in CLASSES) + " | verdict | step |")
    print("|---" * (5 + len(CLASSES)) + "|")
    for name in ("crafting", "household"):
        panel = fresh_panel("dev", args.seed + 1000, name, args.tasks)  # type: ignore[arg-type]
        played: list[tuple[Task, Plan, list[Labelled]]] = []
        for index, task in enumerate(panel.tasks):
            plan = known_plan(task)
            for how in ("clean", "early", "skipped", "repeated", "distracted") if plan else ():
                assert plan is not None
                rng = random.Random(f"{args.seed} {index} {how}")
                played.append((task, plan, corrupted(task, plan, how, rng)))
        for method, (matcher, with_status) in methods.items():
            print(row(name, method, score(played, matcher, with_status)))


def score(
    played: Sequence[tuple[Task, Plan, list[Labelled]]], matcher: Matcher, with_status: bool
) -> tuple[Counter[tuple[Verdict, Verdict]], int, int]:
    """Counts of (label, verdict), of correctly matched steps, and of actions with a step."""
    pairs: Counter[tuple[Verdict, Verdict]] = Counter()
    right = steps = 0
    for task, plan, labels in played:
        found = verdicts(task, plan, [label.action for label in labels], matcher, with_status)
        for label, judged in zip(labels, found, strict=True):
            given = OFF if judged.verdict is Verdict.UNPLANNED_RECOVERY else judged.verdict
            pairs[label.verdict, given] += 1
            steps += label.step is not None
            right += label.step is not None and label.step == judged.step
    return pairs, right, steps


def row(name: str, method: str, scored: tuple[Counter[tuple[Verdict, Verdict]], int, int]) -> str:
    pairs, right, steps = scored
    total: Callable[[Callable[[Verdict, Verdict], bool]], int] = lambda keep: sum(  # noqa: E731
        n for (label, given), n in pairs.items() if keep(label, given)
    )
    cells = []
    for c in CLASSES:
        both = pairs[c, c]
        said, true = total(lambda _, g, c=c: g is c), total(lambda lab, _, c=c: lab is c)  # type: ignore[misc]
        cells.append(f"{both / max(1, said):.2f} / {both / max(1, true):.2f} ({true})")
    same = total(lambda label, given: label is given) / max(1, sum(pairs.values()))
    rates = f"{same:.2f} | {right / max(1, steps):.2f}"
    return f"| {name} | {method} | {sum(pairs.values())} | {' | '.join(cells)} | {rates} |"


if __name__ == "__main__":
    main()
