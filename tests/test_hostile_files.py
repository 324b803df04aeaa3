"""Whatever a file holds, reading it ends in what it says or in one clear line; so does a disk that is full."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.ablate import summarize
from hiplan import files
from hiplan.envs import Panel
from hiplan.errors import CheckpointError, ConfigError, TaskError, UserError
from hiplan.loading import load_model, stage_facts
from hiplan.models.bases import find_model
from hiplan.models.local import LocalModel
from hiplan.models.settings import LoraSettings, WeightsConfig
from hiplan.models.stages import load_stage, save_stage
from hiplan.report import draw_curves, draw_plan, write_report
from hiplan.runs.cells import read_cell
from hiplan.runs.diagnose import Run
from hiplan.runs.export import convert_stage
from hiplan.runs.job import read_metrics
from hiplan.runs.settings import RunConfig, read_run, resolve
from hiplan.task import Task
from hiplan.trace import Episode
from hiplan.training import checkpoint
from hiplan.training.metrics import MetricsLog

NESTED = "[" * 5000
JUNK = [b"", b"[]", b"null", b'"x"', b"{", b"\xff\xfe", NESTED.encode(), b"1" * 5000]


def one_line(error: pytest.ExceptionInfo[BaseException], *words: str) -> None:
    said = str(error.value)
    assert "\n" not in said and len(said) < 500 and said.isprintable(), said
    for word in words:
        assert word in said, said


# -- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed=2024-99-99", "has a value that does not fit its type (ValueError: month must be in 1..12"),
        (f"seed={'9' * 5000}", "has a value that does not fit its type (ValueError: Exceeds the limit"),
        (f"seed={'9' * 30}", "seed: input should be less than 9223372036854775808, got 9999"),
        (f"seed=0x{'f' * 5000}", "seed: "),
        (f"seed={NESTED}", "is nested more than 50 levels deep"),
        ("seed=" + "{a: " * 5000, "is nested more than 50 levels deep"),
        ('seed=!!int ""', "has a value that does not fit its type (IndexError"),
        ("seed=!!float x", "has a value that does not fit its type (ValueError"),
        ("seed=!!bool x", "has a value that does not fit its type (KeyError"),
        ("seed=!!timestamp x", "has a value that does not fit its type (AttributeError"),
        ("seed=!!python/object/apply:os.getcwd []", "is not YAML"),
        ("seed=*x", "is not YAML at line 1"),
        ("seed=&x [*x]", "has an alias that refers to a node around it"),
        ("seed={[1]: 2}", "is not YAML"),
        ("seed=\x1b[31m", "is not YAML"),
        ("train={1: 2}", "train.1: "),
        ("train.stages=[{name: []}]", "train.stages.0.name: input should be a valid string, got []"),
        (f"model={'x' * 5000}", ""),
    ],
)
def test_an_override_is_used_or_refused_in_one_line(text: str, words: str) -> None:
    if not words:
        assert resolve(None, [text]).model == "x" * 5000
        return
    with pytest.raises(ConfigError) as caught:
        resolve(None, [text])
    one_line(caught, words)


def test_a_stage_without_a_usable_name_can_be_set_by_its_place() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(None, ["train.stages=[{name: [], trains: [executor], iterations: 1}]", "train.stages.0.iterations=2"])
    one_line(caught, "train.stages.0.name: input should be a valid string, got []")
    given = ["train.stages=[{name: [], trains: [executor], iterations: 1}]", "train.stages.0.name=executor"]
    assert resolve(None, given).train.stages[0].name == "executor"


@pytest.mark.parametrize("content", [*JUNK[1:], b"\x00", b"a: b: c", b"- 1", b"5", b"false", b"{1: 2}"])
def test_a_settings_file_is_used_or_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    if content == b"null":
        assert resolve(tmp_path / "config.yaml", []) == resolve(None, [])
        return
    for read in (lambda: resolve(tmp_path / "config.yaml", []), lambda: read_run(tmp_path)):
        with pytest.raises(ConfigError) as caught:
            read()
        one_line(caught)


def test_a_folder_in_place_of_a_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(tmp_path, [])
    one_line(caught, "cannot be read: Is a directory")


def bomb(levels: int) -> str:
    """A text whose last value stands for 9**levels values."""
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("levels", [6, 7, 9, 40])
def test_an_alias_bomb_is_refused_fast(levels: int, tmp_path: Path) -> None:
    (tmp_path / "bomb.yaml").write_text(bomb(levels))
    began = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        resolve(tmp_path / "bomb.yaml", [])
    one_line(caught, "bomb.yaml' has more than 10,000 values after expanding aliases; use fewer aliases")
    merged = "a0: &a0 {k: 1}\n" + "".join(
        f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, levels)
    )
    with pytest.raises(ConfigError):
        files.parse_yaml(merged, "it")
    assert time.perf_counter() - began < 1


def test_plain_aliases_are_as_good_as_ever() -> None:
    text = (
        "one: &one {name: executor, trains: [executor], iterations: 1}\ntwo: [*one, *one]\nthree: {<<: *one, kl: 1}\n"
    )
    assert files.parse_yaml(text, "it") == yaml.safe_load(text)


# -- checkpoints, stages, models ----------------------------------------------------------------


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage") / "joint"
    save_stage(LocalModel.load("tiny-v1", WeightsConfig(lora=LoraSettings(rank=2, alpha=4))), folder, {})
    return folder


WHOLE = '{"base": "tiny-v1", "weights": {"mode": "split", "lora": {"rank": 2, "alpha": 4}}'
SHAPES = [
    b"{}",
    b'{"base": 1, "weights": {}}',
    b'{"base": "tiny-v1", "weights": []}',
    f'{WHOLE}, "loaded_with": []}}'.encode(),
    f'{WHOLE}, "loaded_with": {{"device": "cpu"}}}}'.encode(),
    f'{WHOLE}, "loaded_with": {{"dtype": "int3"}}}}'.encode(),
    f'{WHOLE}, "about": 1}}'.encode(),
    f'{WHOLE}, "about": {{"decoding": "plan_tokens"}}}}'.encode(),
    f'{WHOLE}, "about": {{"decoding": {{"plan_tokens": "many"}}}}}}'.encode(),
    f'{WHOLE}, "about": {{"eval_turns": []}}}}'.encode(),
]


def test_a_stage_that_says_nothing_of_its_run_has_no_conditions(stage: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(stage, tmp_path / "stages" / "joint"))
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    (place / "stage.json").write_text(f"{WHOLE}}}")
    known = Run.read(tmp_path, "joint").conditions
    assert known["base"] == "tiny-v1" and known["replan"] == "on_failure" and known["plan_tokens"] is None


@pytest.mark.parametrize("content", JUNK + SHAPES)
def test_a_broken_stage_file_is_one_line(content: bytes, stage: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(stage, tmp_path / "joint"))
    (broken / "stage.json").write_bytes(content)
    for read in (load_stage, stage_facts, lambda folder: convert_stage(folder, "joint", tmp_path / "out", "planner")):
        with pytest.raises(CheckpointError) as caught:
            read(broken)
        one_line(caught, "joint' is not a stage checkpoint", "expected a folder such as RUN/stages/joint")


@pytest.mark.parametrize("content", [*JUNK, b"{}", b'{"r": 2, "lora_alpha": 4, "target_modules": [1, "a"]}'])
def test_a_broken_adapter_config_is_one_line(content: bytes, stage: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(stage, tmp_path / "joint"))
    (broken / "planner" / "adapter_config.json").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load_model(planner=broken / "planner")
    one_line(caught, "planner' is no LoRA adapter in PEFT's format: ")
    if content in JUNK:
        with pytest.raises(CheckpointError) as caught:
            load_stage(broken)
        one_line(caught, "adapter_config.json'")


@pytest.mark.parametrize("content", [*JUNK, b'{"prompts": []}', b'{"prompts": "loud"}'])
@pytest.mark.parametrize("name", ["hiplan.json", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_broken_model_folder_is_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(find_model("tiny-v1"), tmp_path / "model"))
    (broken / name).write_bytes(content)
    if name == "tokenizer_config.json" and content.startswith(b'{"'):  # fields that mean nothing there
        LocalModel.load(str(broken))
        return
    with pytest.raises(ConfigError) as caught:
        LocalModel.load(str(broken))
    one_line(caught, str(broken)[:30])


@pytest.mark.parametrize("content", [*JUNK, b'{"name": "p", "tasks": [{"env": 1}]}'])
def test_a_broken_panel_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "panel.json").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Panel.read(tmp_path / "panel.json")
    one_line(caught, "panel.json'")


# -- what a run wrote ---------------------------------------------------------------------------


ROWS = [
    b"5\n",
    b"[]\n",
    b"{}\n",
    b'{"kind": 1}\n',
    b'{"kind": "eval"}\n',
    b'{"kind": "eval", "stage": [], "panel": "dev", "success": 1}\n',
    b'{"kind": "eval", "stage": "base", "panel": "dev", "success": "much"}\n',
    b'{"kind": "eval", "stage": "base", "panel": "dev", "success": NaN}\n',
    b'{"kind": "eval", "stage": "base", "panel": "dev", "success": 1, "low": "x", "high": []}\n',
    b'{"kind": "train", "iteration": "first"}\n',
    b'{"kind": "train", "iteration": "1"}\n',
    b'{"kind": "train", "env_steps": {}}\n',
    NESTED.encode() + b"\n{}\n",
    b"1" * 5000 + b"\n{}\n",
    b"\xff\n{}\n",
]


@pytest.mark.parametrize("content", ROWS)
def test_wrong_metrics_are_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(content)
    for read in (write_report, read_metrics):
        with pytest.raises(UserError) as caught:
            read(tmp_path)
        one_line(caught, "1 of", "metrics.jsonl'")


@pytest.mark.parametrize("content", JUNK)
def test_a_broken_kept_cell_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "cell.json").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_cell(tmp_path / "cell.json")
    one_line(caught, "the cell ", "cell.json'")


@pytest.mark.parametrize("content", [*JUNK, b"{}"])
@pytest.mark.parametrize("name", ["times.json", "panels.json", "environment.json"])
def test_a_study_says_what_is_wrong_with_a_run(name: str, content: bytes, tmp_path: Path) -> None:
    whole = {"environment.json": {"parameters": {"total": 3}}, "panels.json": {}, "metrics.jsonl": {"kind": "train"}}
    for file, known in {**whole, "times.json": {"wall_s": 3, "memory_mb": 9}}.items():
        (tmp_path / file).write_text(json.dumps(known) + "\n")
    assert summarize(tmp_path, RunConfig(), {"arm": "main"}, None)["wall_s"] == 3
    (tmp_path / name).write_bytes(content)
    if name == "panels.json" and content == b"{}":
        return
    with pytest.raises(ConfigError) as caught:
        summarize(tmp_path, RunConfig(), {"arm": "main"}, None)
    one_line(caught, name)


@pytest.mark.parametrize("content", [*JUNK[1:], b'{"wall_s": "long"}', b'{"wall_s": []}', b'{"wall_s": Infinity}'])
@pytest.mark.parametrize("name", ["times.json", "panels.json", "environment.json"])
def test_wrong_facts_of_a_run_are_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    if content.startswith(b'{"') and name != "times.json":
        assert write_report(tmp_path).is_file()
        return
    with pytest.raises(UserError) as caught:
        write_report(tmp_path)
    one_line(caught, name)


# -- long chains --------------------------------------------------------------------------------


def chain(length: int) -> Task:
    names = [f"item {''.join(chr(97 + int(digit)) for digit in str(n))}" for n in range(length + 1)]
    recipes = [f"craft 1 {made} using 1 {needed}" for needed, made in pairwise(names)]
    return Task(env="crafting", params={"recipes": recipes, "goal": names[-1]})


def test_a_long_chain_of_recipes_is_played_and_a_longer_one_refused() -> None:
    from hiplan.envs import make_env

    env: Any = make_env(chain(1000))
    env.reset(chain(1000))
    plan = env.oracle_plan()
    assert len(plan.steps) == len(env.subgoals()) == 1000 and plan.steps[-1].after == (999,)
    first = env.oracle_action(None)
    assert first == "get 1 item a" and not env.step(first).refused
    with pytest.raises(TaskError) as caught:
        make_env(chain(3000)).reset(chain(3000))
    one_line(caught, "needs 3000 recipes, but a plan has at most 1000 steps")


# -- writing ------------------------------------------------------------------------------------


@contextmanager
def full_disk(room: int = 0) -> Iterator[None]:
    """No file may grow beyond so many bytes: the kernel refuses, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def writers(folder: Path) -> dict[str, Any]:
    import torch

    tensors, state = {"a": torch.zeros(100_000)}, {"n": 1}
    model = LocalModel.load("tiny-v1", WeightsConfig(lora=LoraSettings(rank=2, alpha=4)))
    log = MetricsLog(folder)
    return {
        "000001-0": lambda: checkpoint.save_state(folder / "000001-0", tensors, state),
        "text": lambda: files.write_text(folder / "text", "x" * 100_000),
        "metrics.jsonl": lambda: log.add({"kind": "train", "words": "x" * 100_000}),
        "joint": lambda: save_stage(model, folder / "joint", {}),
        "report.html": lambda: write_report(folder),
        "curves.png": lambda: draw_curves([], folder / "curves.png"),
        "plans.png": lambda: draw_plan(Episode(Task(env="e"), ""), folder / "plans.png"),
    }


WRITTEN = ["000001-0", "text", "joint"]


@pytest.mark.parametrize("name", ["metrics.jsonl", *WRITTEN, "report.html", "curves.png", "plans.png"])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(name: str, tmp_path: Path) -> None:
    write, path = writers(tmp_path)[name], tmp_path / name
    if name != "metrics.jsonl":
        write()
    before = {file: file.read_bytes() for file in [path, *path.rglob("*")] if file.is_file()}
    with full_disk(200), pytest.raises(UserError) as caught:
        write()
    one_line(caught, f"{str(path)!r} cannot be written: ", "free disk space or choose another folder")
    if path.suffix != ".png":  # these are drawn again from the metrics
        assert {file: file.read_bytes() for file in before} == before
    shown = json.dumps(str(caught.value))
    assert "File too large" in shown or "os error 27" in shown


@pytest.mark.parametrize("name", WRITTEN)
def test_a_folder_that_cannot_be_written_to_is_one_line(name: str, tmp_path: Path) -> None:
    write = writers(tmp_path)[name]
    (tmp_path / f".{name}.tmp").mkdir()
    (tmp_path / f".{name}.tmp" / "x").mkdir()
    if name != "text":
        shutil.rmtree(tmp_path)
        tmp_path.write_text("a file where the folder should be")
    with pytest.raises(UserError) as caught:
        write()
    one_line(caught, f"{str(tmp_path / name)!r} cannot be written: ")


def test_the_commands_end_in_one_line_where_the_disk_is_full(tmp_path: Path) -> None:
    """Also where matplotlib or another library writes the file."""
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))\n"
        "from hiplan import cli\n"
        "sys.argv = ['hiplan', 'report', sys.argv[1]]\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ") and "report.html' cannot be written: File too large" in done.stderr
    assert os.listdir(tmp_path) in ([], [".report.html.tmp"])
