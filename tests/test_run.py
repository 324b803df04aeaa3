"""The main job as its users start it: a small real run, its folder, its companions, and what wrong options say."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from commands import Call, one_line

from hiplan.envs import Panel
from hiplan.errors import ConfigError
from hiplan.loading import stage_facts
from hiplan.models.bases import find_model
from hiplan.plan import ReplanKind
from hiplan.report.files import read_episodes
from hiplan.runs.diagnose import AFTER, Setting, measure_reliance, read_runs
from hiplan.runs.measure import as_trained

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    part
    for text in (
        "train.stages.executor.iterations=1",
        "train.stages.planner.iterations=1",
        "train.stages.joint.iterations=2",
        "train.groups=3",
        "train.group_size=4",
        "train.turns=4",
        "eval_turns=4",
        "panel_tasks=2",
        "threads=1",
    )
    for part in ("--set", text)
]
FILES = (
    "config.yaml", "metrics.jsonl", "times.jsonl", "times.json", "panels.json", "environment.json", "curves.png",
    "plan_graph.png", "transcripts.jsonl", "report.html", "stages/executor/stage.json", "stages/planner/stage.json",
    "stages/joint/planner/adapter_model.safetensors", "stages/joint/executor/adapter_model.safetensors",
)  # fmt: skip


MAIN_JOB = [sys.executable, str(ROOT / "experiments" / "run.py")]


def main_job(*options: str | Path) -> subprocess.CompletedProcess[str]:
    """``python experiments/run.py`` in a process of its own."""
    return subprocess.run([*MAIN_JOB, *map(str, options)], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job") / "run"
    done = main_job("--out", folder, *SMALL)
    assert done.returncode == 0, done.stderr
    assert f"report: {folder / 'report.html'}" in done.stdout.replace("\n", "")
    return folder


def test_a_run_leaves_everything_in_its_folder(finished: Path) -> None:
    assert [name for name in FILES if not (finished / name).is_file()] == []
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows if row["kind"] == "train"] == ["executor", "planner", "joint", "joint"]
    measured = {(row["stage"], row["panel"], row["agent"]) for row in rows if row["kind"] == "eval"}
    assert measured >= {
        (s, p, a) for s in ("base", "final") for p in ("train", "dev", "heldout") for a in ("plan", "none")
    }
    assert measured >= {(s, "dev", "plan") for s in ("base", "executor", "planner", "final")}
    page = (finished / "report.html").read_text()
    planned = sum(any(r.plan for r in e.plans) for e in read_episodes(finished / "transcripts.jsonl"))
    assert "<script" not in page and "http://" not in page
    assert page.count("data:image/png;base64,") == 2 * (1 + planned), "curves, each episode's plans; for two widths"


def test_kept_episodes_are_the_first_tasks_of_the_panels(finished: Path) -> None:
    tasks = [
        task.id for name in ("train", "heldout") for task in Panel.read(finished / "panels" / f"{name}.json").tasks
    ]
    assert [episode.task.id for episode in read_episodes(finished / "transcripts.jsonl")] == tasks
    assert "Selected by position, not by outcome: the first 2 of train and" in (finished / "report.html").read_text()


def test_a_run_records_what_its_figures_depend_on(finished: Path) -> None:
    about = json.loads((finished / "environment.json").read_text())
    assert about["threads"] == 1 and about["cores"] >= 1 and about["memory_gib"] > 0 and about["cpu"]
    assert about["versions"]["hiplan"] and about["parameters"]["trained"] > 0


def test_a_killed_job_goes_on_and_ends_with_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [*MAIN_JOB, "--out", folder, *SMALL], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    log, until = folder / "metrics.jsonl", time.monotonic() + 200
    while not (log.is_file() and '"planner"' in log.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it had not ended before
    assert not (folder / "report.html").exists()
    done = main_job("--resume", folder)
    assert done.returncode == 0, done.stderr
    stages = sorted(str(p.relative_to(finished)) for p in (finished / "stages").rglob("*") if p.is_file())
    assert len(stages) > 9
    for name in (*FILES[:2], *FILES[4:6], "transcripts.jsonl", *stages):
        assert (folder / name).read_bytes() == (finished / name).read_bytes(), name


def test_a_stage_can_be_measured_and_played(finished: Path, call: Call) -> None:
    measured = call("evaluate", finished / "stages/joint", "--tasks", "2", "--panel-seed", "5", "--threads", "1")
    assert measured.code == 0, measured.err
    assert all(f"mixed-{panel}-5" in measured.out for panel in ("train", "dev", "heldout"))
    assert call("evaluate", find_model("tiny-v1"), "--tasks", "2", "--panel", "dev", "--threads", "1").code == 0
    played = call("play", finished / "stages/joint", "--env", "crafting", "--index", "1")
    assert played.code == 0 and "Turn 1" in played.out and "Plan" in played.out


def test_a_run_can_be_diagnosed(finished: Path, tmp_path: Path, call: Call) -> None:
    out, other = tmp_path / "diagnosed", tmp_path / "other"
    shutil.copytree(finished, other)
    options = ["diagnose", finished, other, "--tasks", "2", "--panels", "train", "--out", out]
    done = call(*options, "--parallel", "0")
    assert done.code == 0, done.err
    titles = ("Success under different plans", "What the plan is worth", "Roles of different runs", "Where episodes")
    assert all(title in done.out and title in (out / "report.html").read_text() for title in titles)
    names = ["train-cross.json", "train-trained-other.json", "train-trained-run.json", "train-untrained.json"]
    assert sorted(path.name for path in (out / "cells").iterdir()) == names
    cell = out / "cells" / names[2]
    made = cell.read_bytes()
    cell.unlink()
    assert call(*options).code == 0 and cell.read_bytes() == made, "another process measures the same"


def test_replan_policies_are_compared(finished: Path, tmp_path: Path, call: Call) -> None:
    options = ["--study", "replan", "--tasks", "2", "--panels", "dev", "--out", tmp_path, "--parallel", "0"]
    done = call("diagnose", finished, *options)
    assert done.code == 0, done.err
    for way in ("never", "every turn (AdaPlan)", "4 plans, judge chooses", "4 plans, rehearsal chooses"):
        assert f"| {way} |" in done.out


def test_match_takes_as_many_environment_steps_as_another_run(finished: Path, call: Call) -> None:
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    steps = max(row["env_steps"] for row in rows if row["kind"] == "train")
    shown = call("train", "--config", ROOT / "experiments/configs/rejection.yaml", "--match", finished, "--show-config")
    assert yaml.safe_load(shown.out)["train"]["stages"][-1]["env_steps"] == steps


@pytest.mark.parametrize("row", ['{"kind": "train"}', '{"kind": "train", "env_steps": null}', '{"kind": "dev"}'])
def test_match_refuses_a_run_without_environment_steps(row: str, tmp_path: Path, call: Call) -> None:
    (tmp_path / "metrics.jsonl").write_text(row + "\n")
    one_line(call("train", "--match", tmp_path, "--show-config"), "this run has no environment steps")


def test_settings_come_from_defaults_file_and_options_in_this_order(tmp_path: Path, call: Call) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 3\nenv: crafting\ntrain: {groups: 5}\n")
    shown = call("train", "--config", file, "--seed", "4", "--set", "train.stages.joint.iterations=7", "--show-config")
    settings = yaml.safe_load(shown.out)
    assert (settings["seed"], settings["env"], settings["train"]["groups"]) == (4, "crafting", 5)
    assert settings["train"]["stages"][2]["iterations"] == 7 and settings["train"]["group_size"] == 8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["train", "--set", "train.gruops=3"], "unknown field 'train.gruops': expected one of"),
        (["train", "--set", "train.groups"], "has no '='"),
        (["train", "--set", "train.groups=few"], "train.groups: input should be a valid integer"),
        (
            ["train", "--set", "train.stages.middle.iterations=3"],
            "expected one of executor, planner, joint, 0, 1, 2 instead of 'middle'",
        ),
        (["train", "--set", "train.algorithm=ppo"], "unknown algorithm 'ppo'; expected one of grpo, rejection"),
        (["train", "--set", "train.algorithm.credit=gae"], "unknown credit function 'gae'; expected one of grpo"),
        (
            ["train", "--set", "train.algorithm.loss=gone.py:loss"],
            "no file 'gone.py'; expected a Python file with a loss",
        ),
        (["train", "--set", "train.algorithm.reward=math:gone"], "'math' has no attribute 'gone'; expected"),
        (["train", "--set", "train.algorithm.reward=no.such:f"], "the module 'no.such' of the reward function cannot"),
        (["train", "--env", "chess"], "unknown task suite 'chess'; expected one of mixed, crafting, household"),
        (["train", "--env", "math:pi"], "'math:pi' is a float; expected a hiplan.envs.TaskSuite"),
        (["train", "--weights", "glued"], "weights.mode: input should be 'joint'"),
        (["train", "--model", "nowhere"], "no model at 'nowhere'"),
        (["train", "--model", "models/nowhere", "--dry-run"], "or one of tiny-v1"),
        (["train", "--set", "weights.method=full"], "weights: 'split' weights are adapters on one base; full training"),
        (["train", "--config", "absent.yaml"], "no config file at 'absent.yaml'"),
        (["train", "--resume", "absent"], "no config file at"),
        (["train", "--resume", "absent", "--seed", "1"], "--resume 'absent' continues with the settings of that run"),
        (["train", "--match", "absent"], "no run at 'absent'"),
        (["export", "absent", "--role", "planner", "--out", "x"], "'absent' is not a stage"),
        (["convert", "absent", "--to", "split", "--out", "x"], "'absent' is not a stage"),
        (["diagnose", "absent"], "no config file at"),
        (["diagnose", "absent", "--decoding", "t9"], "unknown decoding 't9'"),
        (["diagnose", "absent", "--study", "replan", "--panels", "test"], "no config file at"),
        (["evaluate", "absent"], "'absent' is not a stage"),
        (["play", "--env", "chess"], "unknown task suite 'chess'"),
        (["play", "--index", "6400"], "the panel 'dev' has no task 6400"),
        (["plans", "p.jsonl", "--set", "judge=planner"], "judge: planner needs an endpoint as planner"),
        (["plans", "p.jsonl", "--set", "tires=3"], "unknown field 'tires'"),
    ],
)
def test_wrong_options_are_answered_in_one_line(
    options: list[str], said: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one_line(call(*options), said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["ablate", "nothing"], "unknown study 'nothing'; expected one of main, baselines, weights"),
        (["ablate", "weights", "--seeds", "a,b"], "--seeds must be whole numbers such as 0,1,2, got 'a,b'"),
        (["--set", "train.gruops=3"], "unknown field 'train.gruops'"),
    ],
)
def test_the_main_job_and_its_studies_answer_alike(options: list[str], said: str, call: Call) -> None:
    from experiments.run import app

    one_line(call(*options, app=app), said)


def test_one_of_several_processes_ends_with_the_same_exit_codes(tmp_path: Path) -> None:
    environment = os.environ | {"LOCAL_RANK": "0"}
    for options, code in ((["--show-config"], 0), (["--set", "train.gruops=3"], 2), (["ablate", "--nothing"], 2)):
        done = subprocess.run([*MAIN_JOB, *options], capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == code and (done.stdout if code == 0 else done.stderr)


def test_a_run_revises_as_it_is_told_and_is_measured_and_diagnosed_so(
    finished: Path, tmp_path: Path, call: Call
) -> None:
    shown = ["train.warm_start=8", "train.replan=every_turn", "train.stages.joint.iterations=0"]
    done = call("train", "--out", tmp_path / "run", *SMALL, *(part for text in shown for part in ("--set", text)))
    assert done.code == 0, done.err
    told = {
        folder: [r.reason.kind for e in read_episodes(folder / "transcripts.jsonl") for r in e.plans if r.reason]
        for folder in (finished, tmp_path / "run")
    }
    assert ReplanKind.SCHEDULED not in told[finished] and set(told[tmp_path / "run"]) == {ReplanKind.SCHEDULED}
    stage = tmp_path / "run" / "stages" / "joint"
    assert as_trained(stage_facts(stage)).train.replan == "every_turn"
    for pair in ((finished, tmp_path / "run"), (tmp_path / "run", finished)):
        with pytest.raises(ConfigError, match=r"differs from .* in replan \('(every_turn|on_failure)'"):
            read_runs(pair, "joint")
    setting = Setting("train", 2, "greedy")
    found = measure_reliance(str(stage), AFTER, vars(setting))["results"]["own"]
    assert found["calls"] > 2 * found["turns"] - 2, "planner and executor, turn by turn"


def test_a_folder_that_holds_a_run_is_not_written_over(finished: Path, call: Call) -> None:
    done = call("train", "--out", finished, *SMALL)
    assert done.code == 2 and f"continue it with --resume {finished}" in done.err
