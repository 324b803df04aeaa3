"""The plans command: batches and their filter by hand, what a kill leaves, and what wrong options say."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from commands import Call, one_line
from endpoint import serve
from judging import scores

from hiplan.coordination import PlanScore, Unjudged, judge_plan
from hiplan.coordination.rubric import RUBRIC
from hiplan.envs import TaskSuite, make_env, shipped_panel
from hiplan.formats import parse_numbered
from hiplan.model import Model, ScriptedModel
from hiplan.runs import plan_data, plan_journal
from hiplan.task import Task
from hiplan.training.sources import from_file


def settings(**over: Any) -> Any:
    return plan_journal.PlanSettings(**{"model": "m", "judge": "rules", "env": "crafting", "batch": 2} | over)


def made(by: Any, count: int, model: Model, **over: Any) -> list[Any]:
    tasks = [Task(env="crafting", params={"seed": s, "depth": 1}) for s in range(count)]
    return list(plan_data.plan_batch(tasks, settings(**over), model, by))


def by_number(table: dict[int, PlanScore | Unjudged]) -> Any:
    """A judge that scores the plan ``1. try N`` by a table."""
    return lambda batch: [table[int(c.plan.steps[0].description.split()[1])] for c in batch]


def counting() -> ScriptedModel:
    """Writes ``1. try 0``, ``1. try 1`` and so on."""
    return ScriptedModel(f"1. try {i}" for i in range(1000))


GOOD, FAIR, BAD = PlanScore(5, 5, 5), PlanScore(4, 5, 5), PlanScore(5, 4, 5)


def test_a_batch_is_kept_if_at_least_half_of_it_passes() -> None:
    table: dict[int, PlanScore | Unjudged] = {0: BAD, 1: FAIR, 2: GOOD, 3: Unjudged("hm")}
    (line,) = made(by_number(table), 1, counting())
    assert line.kept == 2  # the best of the two that pass
    assert [tried.passes for tried in line.plans] == [False, True, True, False]
    assert [tried.scores for tried in line.plans] == [BAD, FAIR, GOOD, None]
    assert (line.plans[3].why, line.plans[2].plan) == ("hm", "1. try 2")
    assert line.for_training() == ['{"task":{"env":"crafting","params":{"seed":0,"depth":1}},"plan":"1. try 2"}']


def test_batches_are_sampled_again_until_half_pass_or_the_rounds_are_over() -> None:
    # task 0: 0, 1 | 4, 5; task 1: 2, 3; in the second round only task 0 is left, then nothing of it passes
    table: dict[int, PlanScore | Unjudged] = dict.fromkeys(range(100), BAD)
    table |= {2: FAIR, 3: BAD, 0: BAD, 1: BAD, 4: BAD, 5: GOOD}
    first, second = made(by_number(table), 2, counting(), tries=2, rounds=3)
    assert (second.kept, len(second.plans)) == (0, 2)
    assert (first.kept, [tried.round for tried in first.plans]) == (3, [0, 0, 1, 1])
    assert [line.left for line in (first, second)] == [1, 0]
    (given_up,) = made(by_number(dict.fromkeys(range(100), BAD)), 1, counting(), tries=2, rounds=3)
    assert given_up.kept is None and given_up.for_training() == [] and len(given_up.plans) == 6
    few: dict[int, PlanScore | Unjudged] = dict.fromkeys(range(100), BAD) | {0: GOOD}
    (fewer,) = made(by_number(few), 1, counting(), tries=4, rounds=1)
    assert fewer.kept is None and fewer.plans[0].passes  # one of four is less than half


def test_without_a_reference_all_three_must_be_5() -> None:
    table: dict[int, PlanScore | Unjudged] = dict.fromkeys(range(8), FAIR)
    assert made(by_number(table), 1, counting(), judge="a model", rounds=1)[0].kept is None
    assert made(by_number(table), 1, counting(), judge="a model", rounds=1, reference=True)[0].kept == 0
    assert made(by_number(table), 1, counting(), judge="rules", rounds=1)[0].kept == 0


def test_the_reference_is_a_trajectory_that_solves_the_task() -> None:
    task = Task(env="crafting", params={"seed": 3, "depth": 2})
    (text,) = plan_data.trajectories([task])
    env = make_env(task)
    env.reset(task)
    results = [env.step(line[2:]) for line in text.splitlines() if line.startswith("> ")]
    assert results[-1].terminated and sum(r.reward for r in results) == 1.0
    seen: list[str] = []
    made(lambda batch: [seen.append(c.reference) or GOOD for c in batch], 1, counting(), reference=True, tries=1)
    assert seen and seen[0].startswith("> ")


def test_tasks_are_new_each_time_and_of_no_panel() -> None:
    tasks = list(islice(plan_data.training_tasks("mixed", 0), 300))
    assert len({task.id for task in tasks}) == 300
    assert tasks[:50] == list(islice(plan_data.training_tasks("mixed", 0), 50))
    assert tasks[:50] != list(islice(plan_data.training_tasks("mixed", 1), 50))
    panel = shipped_panel("dev", "household").tasks
    drawn = iter([panel[0], tasks[0], tasks[0], panel[1], tasks[1]])
    again = TaskSuite("again", make_env, lambda rng: next(drawn))
    assert list(islice(plan_data.training_tasks(again, 0), 2)) == tasks[:2]


def test_the_summary_counts_by_hand() -> None:
    table: dict[int, PlanScore | Unjudged] = {0: BAD, 1: FAIR, 2: PlanScore(3, 4, 5), 3: Unjudged("hm")}
    lines = made(by_number(table), 1, counting(), rounds=1, tries=4)
    unread = lines[0].plans[0].model_copy(update={"plan": "", "scores": PlanScore(1, 1, 1)})
    lines[0] = lines[0].model_copy(update={"plans": (*lines[0].plans, unread)})
    text = plan_data.summary(lines, False, [])
    assert "tasks: 1, with a plan 0, given up 1\nplans: 5 sampled, 1 passed, 0 kept" in text
    why = "correctness {}, followability 2, standardisation 0, could not be read 1, could not be judged 1"
    assert why.format(1) in text
    assert why.format(2) in plan_data.summary(lines, True, [])


def options_of(out: Path, *options: str) -> list[str]:
    settings = ["tasks=11", "tries=2", "rounds=2", "batch=2", "env=crafting", *options]
    return ["plans", str(out), *(part for text in settings for part in ("--set", text))]


def endpoint(url: str, **more: Any) -> str:
    return "planner=" + json.dumps({"url": url, "model": "m", **more})


def results(out: Path) -> list[bytes]:
    return [out.read_bytes(), plan_journal.journal_of(out).read_bytes()]


def planner_and_judge(body: dict[str, Any]) -> str:
    """The same answer to the same request: one plan in four is good, by the request's seed."""
    system, asked = body["messages"][0]["content"], body["messages"][-1]["content"]
    if system == RUBRIC:
        return scores(5) if "1. good" in asked else scores(2)
    return f"1. {'good' if body['seed'] % 4 == 0 else 'bad'} {body['seed']}"


def test_a_killed_command_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, call: Call) -> None:
    pytest.importorskip("openai")
    whole, out = tmp_path / "whole.jsonl", tmp_path / "plans.jsonl"
    with serve(planner_and_judge, delay=0.02) as server:
        options = (endpoint(server.url, prices=[1, 10]), "judge=planner")
        done = call(*options_of(whole, *options))
        assert done.code == 0, done.err
        asked = len(server.bodies)
        assert f"this time: {asked} requests, 0 answers from the cache" in done.out
        assert f"cost {asked * (100 * 1 + 10 * 10) / 1e6:.4f}" in done.out
        rng, stood = random.Random(0), []
        for _ in range(4):
            goal = len(server.bodies) + rng.randint(5, 15)
            command = [sys.executable, "-m", "hiplan.cli", *options_of(out, *options)]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            while process.poll() is None and len(server.bodies) < goal:
                time.sleep(0.002)
            process.kill()
            if process.wait() == 0:
                break
            assert process.returncode == -signal.SIGKILL
            journal = plan_journal.journal_of(out)
            stood.append(journal.read_bytes().count(b"\n") if journal.exists() else 0)
        last = call(*options_of(out, *options))
        assert last.code == 0, last.err
        assert results(out) == results(whole)
        assert any(0 < lines < 12 for lines in stood), "it was never killed half way"
        # what was answered before a kill came from the cache; only answers that were under way were asked for twice
        assert len(server.bodies) <= 2 * asked + 8 * len(stood)
        again = len(server.bodies)
        assert call(*options_of(out, *options)).code == 0 and len(server.bodies) == again
    source, tasks = from_file(out)
    rows = [json.loads(line) for line in plan_journal.journal_of(out).read_text().splitlines()[1:]]
    assert len(rows) == 11 and len({Task(**row["task"]).id for row in rows}) == 11
    assert [task.id for task in tasks] == [Task(**row["task"]).id for row in rows if row["kept"] is not None]
    assert 0 < len(tasks) < 11 and None not in source(tasks, 0)


def test_what_a_kill_tore_is_made_again(tmp_path: Path) -> None:
    """The journal as a kill may leave it: any number of its last bytes missing; and the plan file torn anyhow."""

    def make(out: Path, count: int) -> None:
        from rich.console import Console

        model = ScriptedModel(lambda talk: "1. do " + talk.segments[1].text.split("make ")[-1].split()[0])
        plan_data.make_plans(
            settings(tries=1), model, lambda batch: [GOOD] * len(batch), count, out, Console(quiet=True)
        )

    whole, out = tmp_path / "whole.jsonl", tmp_path / "plans.jsonl"
    make(whole, 5)
    journal = plan_journal.journal_of(out)
    size = len(plan_journal.journal_of(whole).read_bytes())
    for left in range(0, size + 1, 53):
        journal.write_bytes(plan_journal.journal_of(whole).read_bytes()[:left])
        out.write_text("torn")
        make(out, 5)
        assert results(out) == results(whole), f"with {left} bytes of {size} left"
    make(out, 7)  # more tasks than before
    assert results(out)[1].startswith(results(whole)[1]) and results(out)[1].count(b"\n") == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("judge=planner",), "judge: planner needs an endpoint as planner; give its url and model"),
        (("planner={url: http://localhost:1/v1}",), "planner.model: field required"),
        ((endpoint("http://localhost:1/v1"), "stage=runs/x"), "planner and stage both choose what plans"),
        (("judge=me",), "judge"),
        ((endpoint("http://localhost:1/v1", prices=[1]),), "planner.prices"),
        ((endpoint("http://localhost:1/v1", timeout=float("nan")),), "planner.timeout"),
        (("env=moon",), "env: input should be 'mixed', 'crafting' or 'household'"),
    ],
)
def test_wrong_options_are_one_clear_line(options: tuple[str, ...], message: str, tmp_path: Path, call: Call) -> None:
    one_line(call(*options_of(tmp_path / "plans.jsonl", *options)), message)
    assert list(tmp_path.iterdir()) == []


def test_other_settings_do_not_go_on_with_a_journal(tmp_path: Path) -> None:
    from hiplan.errors import ConfigError

    out = tmp_path / "plans.jsonl"
    plan_journal.Journal(out, settings())
    with pytest.raises(ConfigError, match="was started with seed 0, not 1"):
        plan_journal.Journal(out, settings(seed=1))
    plan_journal.journal_of(out).unlink()
    with pytest.raises(ConfigError, match="exists without its journal"):
        plan_journal.Journal(out, settings())
    out.unlink()
    plan_journal.journal_of(out).write_text('{"no": "journal"}\n')
    with pytest.raises(ConfigError, match="is not the journal of a plan file"):
        plan_journal.Journal(out, settings())


def test_plans_from_an_endpoint_need_no_torch(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    code = "import runpy, sys; sys.modules['torch'] = None; "
    code += "runpy.run_module('hiplan.cli', run_name='__main__', alter_sys=True)"
    with serve(planner_and_judge) as server:
        options = options_of(tmp_path / "p.jsonl", endpoint(server.url))
        done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tasks: 11, with a plan 0, given up 11" in done.stdout  # the rules know no 'good'


def test_the_shipped_model_makes_a_plan_file(tmp_path: Path, call: Call) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "deep" / "plans.jsonl"
    done = call(*options_of(out, "env=household", "tasks=3", "rounds=1"))
    assert done.code == 0, done.err
    head, *rows = [json.loads(line) for line in plan_journal.journal_of(out).read_text().splitlines()]
    assert (head["model"], head["judge"], head["env"], head["tokens"]) == ("tiny-v1", "rules", "household", 128)
    assert [len(row["plans"]) for row in rows] == [2, 2, 2]
    assert sum(row["kept"] is not None for row in rows) == len(out.read_text().splitlines())
    env = make_env(Task(**rows[0]["task"]))
    env.reset(Task(**rows[0]["task"]))
    by_hand = judge_plan(parse_numbered(rows[0]["plans"][0]["plan"]), env)  # type: ignore[arg-type]
    assert rows[0]["plans"][0]["scores"] == vars(by_hand)
