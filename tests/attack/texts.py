"""Targets: what models and environments write, from parsers to whole episodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from attack.core import Target, chance
from attack.mutate import KINDS, hostile, json_files, texts
from hiplan.coordination import PlanScore, Submission, Unjudged, llm_judge, matching
from hiplan.coordination.matching import Match
from hiplan.env import Oracle, PlanAware
from hiplan.envs import make_env
from hiplan.formats import parse_json, parse_numbered, render_json, render_numbered
from hiplan.model import Decoding, Request, ScriptedModel
from hiplan.plan import MAX_STEPS, Plan, PlanStep, ReplanKind, ReplanReason
from hiplan.prompts import BRIEF, FULL, parse_revision
from hiplan.task import Task
from hiplan.trace import Episode, PlanRecord, Turn

RECIPES = ["craft 4 planks using 1 log", "craft 1 hinge using 2 iron, 1 tin", "craft 1 door using 2 planks, 1 hinge"]
DOOR = Task(env="crafting", params={"recipes": RECIPES, "goal": "door", "kinds": {"log": ["oak log", "elm log"]}})
CUP = Task(env="household", params={"seed": 1, "kind": "clean", "places": 4})
CRAFTING = (
    *RECIPES, "get 2 log", "get oak log", "get 9999 iron", "inventory", "make door", "get 3 tin", "craft", " using ",
    "get ", "make planks", "1", "0", "oak log", "door", "hinge", ", ",
)  # fmt: skip
HOUSEHOLD = (
    "go to rack 1", "open box 1", "take cup 1 from rack 1", "put cup in box 1", "clean cup 1 with sink 1", "look",
    "use lamp 1", "find cup at rack 1", "clean cup at sink 1", "inventory", "move cup 1 to box 1", "close box 1",
    "cup", " at ",
)  # fmt: skip
PLANS = (
    "1. make planks\n2. make hinge\n3. make door after 1, 2",
    "Need door.\n1. find cup at rack 1\n2. put cup in box 1 after 1",
)
JSON_PLANS = (
    '{"goal": "door", "rationale": "r", "steps": [{"id": 1, "description": "make planks"}, '
    '{"id": 2, "description": "make door", "after": [1]}]}',
)  # fmt: skip
PLAN_KEYS = ("steps", "id", "description", "after", "goal", "rationale", "revision")
ACTIONS = ("I should get logs.\nAction: get 2 log", "Action: look\nObservation: done\nAction: inventory", "get 2 log")
DONE = "\n--\n"  # between the texts of one input


def attack_numbered(text: str) -> None:
    check_plan(parse_numbered(text))


def attack_json(data: bytes) -> None:
    check_plan(parse_json(data.decode("utf-8", "surrogateescape")))


def check_plan(plan: Plan) -> None:
    """The plan keeps its steps when it is written and read, and an episode can record it."""
    assert parse_numbered(render_numbered(plan)).steps == plan.steps, "numbered text changed the steps"
    assert parse_json(render_json(plan)).steps == plan.steps, "JSON changed the steps"
    check_record(Episode(CUP, "", plans=[PlanRecord(0, plan)]))


def check_record(episode: Episode) -> None:
    """The episode can be written to a file and read again."""
    line = episode.to_json()
    assert Episode.from_json(line.encode().decode()).to_json() == line, "an episode came back changed"
    assert "\n" not in line, "an episode takes more than a line"


def attack_revision(text: str) -> None:
    if plan := parse_revision(text, FULL.format.parse):
        check_plan(plan)


def attack_action(text: str) -> None:
    for prompts in (BRIEF, FULL):
        action = prompts.parse_action(text)
        assert action and action == action.strip() and len(action.splitlines()) == 1, f"{action!r} is no single action"


def make_dense(rng: Random) -> str:
    """Long plans whose steps wait for very many others, with something wrong or not."""
    n = rng.choice((300, 700, MAX_STEPS - 2))
    waits = rng.choice(
        (lambda i: range(1, i), lambda i: range(max(1, i - 60), i), lambda i: [i % n + 1], lambda i: [i + 1])
    )
    rows = [f"{i}. step {i} after {', '.join(map(str, waits(i)))}" if i > 1 else "1. step 1" for i in range(1, n + 1)]
    wrong = rng.choice(("", "1. again", "1001. late after 2000", f"2000. a after 2001\n2001. b after 2000, {n}"))
    rows.insert(rng.randint(0, len(rows)), wrong)
    return "\n".join(row[:300_000] for row in rows)


# -- environments -----------------------------------------------------------------------------


def attack_world(task: Task, own: Sequence[str]) -> Callable[[str], None]:
    """The text's lines as actions, after a few useful ones: a refused action changes nothing."""

    def attack(text: str) -> None:
        rng, env = chance(text), make_env(task)
        env.reset(task)
        for action in (*rng.choices(own, k=rng.randint(0, 4)), *text.split("\n")[:8], text):
            before = env.state_key()
            result = env.step(action)
            assert isinstance(result.observation, str) and result.reward in (0.0, 1.0)
            unchanged = env.state_key() == before and result.reward == 0.0
            assert unchanged or not result.refused, "a refused action had an effect"
        env.close()

    return attack


def attack_steps(text: str) -> None:
    """The text's lines as plan steps of both environments."""
    for task in (DOOR, CUP):
        env = make_env(task)
        env.reset(task)
        assert isinstance(env, PlanAware) and isinstance(env, Oracle)
        for step in (*text.split("\n")[:6], text):
            goal = env.subgoal_of(step)
            assert goal is None or isinstance(goal, str)
            env.serves(step, text)
            env.step_status(step)
            env.step(env.oracle_action(step))


CRAFTING_TASKS = (
    json.dumps(DOOR.params),
    json.dumps({"recipes": RECIPES[:1], "goal": "planks"}),
    json.dumps({"seed": 1, "depth": 3, "crafts": 4, "width": 2, "distractors": 1, "max_count": 2, "max_yield": 2}),
)
TASK_WORDS = (*CRAFTING, "recipes", "goal", "kinds", "seed", "depth", "crafts", "width", "distractors")


def make_recipes(rng: Random) -> bytes:
    """Recipes, sometimes in long chains or with many items that meet one ingredient."""
    if rng.random() < 0.995:
        return json_files(*CRAFTING_TASKS, own=TASK_WORDS)(rng)
    n = rng.choice((30, 300, 3_000))
    name = lambda i: "".join(chr(97 + int(d)) for d in str(i))  # noqa: E731
    if rng.random() < 0.5:
        lines = [f"craft 1 {name(i)} using {rng.choice(('1', '2', '9999'))} {name(i + 1)}" for i in range(n)]
        return json.dumps({"recipes": lines, "goal": name(0)}).encode()
    few = [name(i) for i in range(min(n, 300))]
    line = f"craft 1 z using {', '.join(f'1 {kind}' for kind in few)}"
    return json.dumps({"recipes": [line], "goal": "z", "kinds": dict.fromkeys(few, few)}).encode()


def attack_task(env: str) -> Callable[[bytes], None]:
    """Parameters of a task: refused, or the environment's own oracle can play it."""

    def attack(data: bytes) -> None:
        try:
            params = json.loads(data)
            task = Task(env=env, params=params)
        except (ValueError, RecursionError):  # no task: whoever reads it says so
            return
        world = make_env(task)
        world.reset(task)
        assert isinstance(world, Oracle) and isinstance(world, PlanAware)
        subgoals, plan = world.subgoals(), world.oracle_plan()
        assert set().union(*subgoals.values()) <= set(subgoals) and plan.steps
        for _ in range(4):
            if world.step(world.oracle_action(None)).terminated:
                break

    return attack


# -- matchers and judges ----------------------------------------------------------------------


def plan_of(text: str, most: int = 6) -> Plan:
    """A plan whose steps hold the lines of the text."""
    rows = [row.encode("utf-8", "replace").decode() for row in text.split("\n") if row.split()][:most] or ["wait"]
    steps = [
        PlanStep(id=i, description=row[:400], after=(i - 1,) if i % 3 == 0 else ()) for i, row in enumerate(rows, 1)
    ]
    return Plan(steps=tuple(steps), rationale="\n".join(rows), goal=rows[0])


def said(generator: Any, text: str) -> Any:
    """What a sub-generator returns when everything it asks is answered with the text."""
    answer = None
    while True:
        try:
            ask = generator.send(answer)
        except StopIteration as stop:
            return stop.value
        (answer,) = ScriptedModel([text]).complete([Request(ask.conversation, Decoding())])


def attack_matchers(text: str) -> None:
    plan, (action, seen) = plan_of(text), (text[: len(text) // 2], text[len(text) // 2 :])
    for matcher in (matching.by_words, matching.best_known, matching.by_environment, matching.by_model()):
        found: Sequence[Match] = said(matcher(plan, action, seen, None), text)
        assert all(match.step <= len(plan.steps) and 0 < match.score <= 1 for match in found)


JUDGEMENTS = (
    '{"reason": "good", "correctness": 5, "followability": 5, "standardisation": 5}',
    '{"reason": "", "correctness": 1.5, "followability": 2, "standardisation": 4}',
)
JUDGE_KEYS = ("reason", "correctness", "followability", "standardisation", "5", "1", "6", "```json\n", "\n```", "{")


def attack_judge(data: bytes) -> None:
    """A judge's answer gives three scores in range, or none and a reason."""
    text = data.decode("utf-8", "surrogateescape")
    (score,) = llm_judge(ScriptedModel([text, text]))([Submission(DOOR, "seen", plan_of("make door"))])
    if isinstance(score, PlanScore):
        assert all(1 <= value <= 5 for value in (score.correctness, score.followability, score.standardisation))
    else:
        assert isinstance(score, Unjudged) and score.why


def attack_judge_question(text: str) -> None:
    """No judged text can close the marks around it."""
    asked: list[str] = []

    def answer(conversation: Any) -> str:
        asked.append(conversation.segments[-1].text)
        return JUDGEMENTS[0]

    llm_judge(ScriptedModel(answer))([Submission(DOOR, text, plan_of(text), text[::2])])
    mark = asked[0].partition("BEGIN TASK ")[2].partition("\n")[0]
    marks = 7 if text else 5  # without a reference
    assert mark and mark not in text and asked[0].count(mark) == marks, "a mark was forged"


# -- prompts ----------------------------------------------------------------------------------


def make_two(rng: Random) -> str:
    return DONE.join(hostile(rng, (*PLANS, *KINDS["plans"], *KINDS["turns"])).replace(DONE, "") for _ in range(2))


def attack_prompts(text: str) -> None:
    """No observation makes a prompt that tells of another plan or other turns, whatever of a true prompt it repeats."""
    seen, _, rest = text.partition(DONE)
    plan = plan_of(rest)
    revised = acted([("look", f"first {seen}")], plan_of("make planks"))
    revised.plans.append(PlanRecord(1, plan))
    true = FULL.act(revised)
    for lie in (
        true,
        f"first {seen}\nPlan:\n{render_numbered(plan)}",
        f"first {seen}\n{true.partition(seen or 'first ')[2]}",
    ):
        assert FULL.act(acted([("look", lie)], plan_of("make planks"))) != true, "an observation was taken for a plan"
    turns = acted([("look", f"first {seen}"), ("wait", "second")], plan)
    for tell in (lambda e: FULL.revise(e, ReplanReason(kind=ReplanKind.STUCK), ()), FULL.resume):
        true = tell(turns)
        lie = true[true.index("first") : true.index("second") + len("second")]
        for words in (lie, f"first {seen}\n> wait\nsecond"):
            assert tell(acted([("look", words)], plan)) != true, "an observation was taken for a turn"


def acted(turns: Sequence[tuple[str, str]], plan: Plan) -> Episode:
    rows = [Turn(i, action, seen, 0.0, False) for i, (action, seen) in enumerate(turns)]
    return Episode(DOOR, "Goal: craft door.", plans=[PlanRecord(0, plan)], turns=rows)


TARGETS = (
    Target("plan, numbered", texts(*PLANS, own=KINDS["plans"]), attack_numbered, 90_000, 0.3),
    Target("plan, JSON", json_files(*JSON_PLANS, own=PLAN_KEYS), attack_json, 80_000, 0.2),
    Target("plan, dense", make_dense, attack_numbered, 150, 300.0),
    Target("revision", texts("keep", *PLANS, own=(*KINDS["plans"], "keep", "Keep.")), attack_revision, 40_000, 0.3),
    Target("action", texts(*ACTIONS, own=KINDS["turns"]), attack_action, 60_000, 0.1),
    Target("crafting, actions", texts(*CRAFTING, own=CRAFTING), attack_world(DOOR, CRAFTING), 60_000, 0.3),
    Target("household, actions", texts(*HOUSEHOLD, own=HOUSEHOLD), attack_world(CUP, HOUSEHOLD), 50_000, 0.3),
    Target(
        "plan steps in environments", texts(*CRAFTING, *HOUSEHOLD, own=CRAFTING + HOUSEHOLD), attack_steps, 30_000, 0.5
    ),
    Target("crafting, task", make_recipes, attack_task("crafting"), 40_000, 0.5),
    Target("household, task", json_files(json.dumps(CUP.params)), attack_task("household"), 20_000, 0.3),
    Target("matchers", texts(*PLANS, own=CRAFTING + HOUSEHOLD), attack_matchers, 20_000, 0.6),
    Target("judge, answer", json_files(*JUDGEMENTS, own=JUDGE_KEYS), attack_judge, 30_000, 0.3),
    Target("judge, question", texts(*PLANS, own=KINDS["turns"]), attack_judge_question, 20_000, 0.4),
    Target("prompts", make_two, attack_prompts, 30_000, 0.2),
)
