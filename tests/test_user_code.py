"""A user's own environment, reward, credit and order of stages, in one file outside the repository, with the wheel.

``user_code/mine.py`` is that file, ``user_code/use.py`` its use in Python; the same is done by command line.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import Call, one_line
from doubles import random_model
from wheels import REPOSITORY, environment_with, finished, from_sources

from hiplan.envs import suite
from hiplan.errors import ConfigError, UserError
from hiplan.named import named
from hiplan.runs.diagnose import Setting
from hiplan.trace import Episode
from hiplan.training import AlgorithmConfig, ProgressiveTrainer, Stage, TrainConfig
from hiplan.training.algorithm import build

FILES = Path(__file__).parent / "user_code"
BOTH = "{name: both, trains: [planner, executor], iterations: 1}"
EXECUTOR = "{name: executor, trains: [executor], iterations: 1}"
SMALL = (
    "train.groups=2", "train.group_size=2", "train.updates=1", "train.turns=4", "train.plan_tokens=8",
    "train.action_tokens=8", "eval_turns=4", "panel_tasks=2", "agents=[plan]", "decodings=[greedy]", "threads=1",
)  # fmt: skip


def options(*settings: str) -> list[str]:
    return ["--env", "mine.py:suite", *(part for text in (*settings, *SMALL) for part in ("--set", text))]


OWN = options(
    "train.algorithm.reward=mine.py:reward",
    "train.algorithm.credit=mine.py:credit",
    f"train.stages=[{BOTH}, {EXECUTOR}]",
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder but for the user's files."""
    for name in ("mine.py", "use.py"):
        shutil.copy(FILES / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- with the wheel ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def programs(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment_with(wheels[0], tmp_path_factory.mktemp("user") / "venv")


def run(command: list[Any], place: Path) -> str:
    return finished(list(map(str, command)), place, {"PYTHONPATH": "", "COLUMNS": "160"})


def learned_as_told(folder: Path) -> None:
    """The stages came in the user's order, with the user's rewards and credit; each can be loaded."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    both, executor = [row for row in rows if row["kind"] == "train"]
    assert (both["stage"], executor["stage"]) == ("both", "executor")
    assert (both["reward_planner"], both["reward_executor"]) == (0.25, 0.75) and both["success"] == 1
    assert "reward_planner" not in executor and executor["reward_executor"] == 0.75
    losses = [both["loss_planner"], both["loss_executor"], executor["loss_executor"]]
    assert losses == pytest.approx([-1, -1, -1], abs=1e-3), "minus the mean advantage, before anything has moved"
    assert sorted(path.name for path in (folder / "stages").iterdir()) == ["both", "executor"]


@from_sources
def test_a_users_code_runs_from_python(programs: Path, place: Path) -> None:
    lines = (place / "use.py").read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith('"""')]) <= 15
    where = "import hiplan, pathlib; print(pathlib.Path(hiplan.__file__).parents[4])"
    assert run([programs / "python", "-c", where], place).strip() == str(programs.parent)
    episode = Episode.from_json(run([programs / "python", "use.py"], place).splitlines()[-1])
    assert episode.success and episode.task.env == "doors" and episode.turns[-1].observation == "The door opens."
    learned_as_told(place / "run")


@from_sources
def test_a_users_code_runs_from_the_command_line(programs: Path, place: Path) -> None:
    hiplan, stage = programs / "hiplan", "run/stages/both"
    run([hiplan, "train", "--out", "run", *OWN], place)
    learned_as_told(place / "run")
    measured = run([hiplan, "evaluate", stage, "--env", "mine.py:suite", "--tasks", "2", "--threads", "1"], place)
    assert all(f"{panel}: doors-{panel}-0-2, 2 tasks" in measured for panel in ("train", "dev", "heldout"))
    rows = [line for line in measured.splitlines() if line.split()[:1] == ["both"]]
    assert [row.count("100 %") for row in rows] == [3, 3], "with plans and without, on three panels"
    played = run([hiplan, "play", stage, "--env", "mine.py:suite"], place)
    assert "The door opens." in played and "End  success" in played
    assert REPOSITORY not in place.parents


def test_a_stage_is_diagnosed_in_the_users_environment(place: Path, call: Call) -> None:
    done = call("train", "--out", "run", *OWN)
    assert done.code == 0, done.err
    sampler, tasks, _ = Setting("dev", 2, "greedy").of("run/stages/both")
    assert {task.env for task in tasks} == {"doors"} and sampler.make_env is suite("mine.py:suite").make_env
    said = "the untrained planner of 'run/stages/both' wrote no plan that parses in 2 tasks"  # tiny-v1 knows no doors
    done = call("diagnose", "run", "--stage", "both", "--panels", "dev", "--tasks", "2", "--parallel", "0")
    assert done.code == 2 and said in done.err.splitlines()[-1]


# -- what is wrong with a user's file --------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--env", "mine.py:nothing"], "'mine.py' has no attribute 'nothing'; expected 'mine.py:nothing' to"),
        (["--env", "mine.py:reward"], "'mine.py:reward' is a function; expected a hiplan.envs.TaskSuite"),
        (["--env", "yours.py:suite"], "there is no file 'yours.py'; expected a Python file with a task suite"),
        (["--set", "train.algorithm.reward=mine.py:gain"], "'mine.py' has no attribute 'gain'"),
        (["--set", "train.algorithm.reward=mine.py:suite"], "'mine.py:suite' is a TaskSuite; expected a reward"),
        (["--set", "train.algorithm.credit=mine.py:__doc__"], "'mine.py:__doc__' is a str; expected a credit function"),
        (["--set", "train.algorithm.reward=mine:reward"], "the module 'mine' of the reward function cannot"),
    ],
)  # fmt: skip
def test_a_name_that_does_not_fit_is_one_line(given: list[str], said: str, place: Path, call: Call) -> None:
    one_line(call("train", *OWN, *given), said)
    assert not (place / "runs").exists()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("\n1 / 0\n", "'mine.py' of the task suite cannot be run: ZeroDivisionError: division by zero ({}, line 2)"),
        ("def f():\n    return {}['a']\nf()\n", "cannot be run: KeyError: 'a' ({}, line 2)"),
        ("import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library' ({}, line 1)"),
        ("suite = (\n", "cannot be run: SyntaxError: '(' was never closed (mine.py, line 1)"),
        ("raise ValueError('two\\nlines\\x1b[31m')\n", "cannot be run: ValueError: two lines\\x1b[31m ({}, line 1)"),
        ("from hiplan import TaskSuite\nsuite = TaskSuite('doors', None, print)\n", "'doors' has None as make_env"),
        ("from hiplan import TaskSuite\nsuite = TaskSuite('doors', print, 3)\n", "has 3 as train; expected a function"),
        ("from hiplan import TaskSuite\nsuite = TaskSuite('doors', print, lambda rng: 'door')\n",
         "the task suite 'doors' returned 'door'; expected a hiplan.Task"),
        ("from hiplan import TaskSuite\nsuite = TaskSuite('doors', print, lambda rng: rng.knock())\n",
         "the task suite 'doors' raised AttributeError: 'Random' object has no attribute 'knock' ({}, line 2)"),
    ],
)  # fmt: skip
def test_what_goes_wrong_inside_the_file_is_one_line(code: str, said: str, place: Path, call: Call) -> None:
    (place / "mine.py").write_text(code)
    one_line(call("train", *options()), said.replace("{}", str(place / "mine.py")))


def trained(place: Path, code: str, **names: str) -> None:
    """Train by functions that are added to the user's file."""
    with (place / "mine.py").open("a") as file:
        file.write(f"\n\n{code}\n")
    stage = Stage(name="executor", trains=("executor",), plans="none", iterations=1)
    config = TrainConfig(
        stages=(stage,), groups=1, group_size=2, action_tokens=2, turns=4,
        algorithm=AlgorithmConfig(**{part: f"{place / 'mine.py'}:{name}" for part, name in names.items()}),
    )  # fmt: skip
    ProgressiveTrainer(random_model(), f"{place / 'mine.py'}:suite", config=config).train()


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("None", "returned None for the executor of doors-"),
        ("'much'", "returned 'much' for"),
        ("[1.0, 2.0, 3.0]", "returned [1.0, 2.0, 3.0] for"),
        ("[]", r"returned [] for"),
        ("float('nan')", "returned nan for"),
        ("[None]", "returned [None] for"),
        ("np.zeros(9)", "returned array([0., 0., 0., 0., 0., 0., 0., 0., 0.]) for"),
        ("list(range(10**4))", "returned [0, 1, 2, 3, 4, 5, "),
    ],
)
def test_a_reward_that_cannot_be_used_is_one_line(returned: str, said: str, place: Path) -> None:
    with pytest.raises(UserError) as caught:
        trained(place, f"def odd(episode, role):\n    return {returned}", reward="odd")
    message = str(caught.value)
    assert f"the reward function {said}" in message and "\n" not in message and len(message) < 300
    assert "expected a finite number, or " in message and message.endswith(" of them, one per answer")


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("None", "returned None; expected "),
        ("[1.0]", "returned [1.0]; expected "),
        ("np.ones((len(decisions), 2))", "returned array([[1., 1.], "),
        ("np.full(len(decisions), np.inf)", "returned array([inf, "),
        ("['a'] * len(decisions)", "returned ['a', 'a'"),
    ],
)
@pytest.mark.parametrize("part", ["credit", "modulators"])
def test_advantages_that_cannot_be_used_are_one_line(part: str, returned: str, said: str, place: Path) -> None:
    with (place / "mine.py").open("a") as file:
        file.write(f"\n\ndef odd(decisions, advantages=None):\n    return {returned}\n")
    name = f"{place / 'mine.py'}:odd"
    algorithm = build(AlgorithmConfig(**{part: (name,) if part == "modulators" else name}))
    stage = Stage(name="executor", trains=("executor",), plans="none", iterations=1)
    config = TrainConfig(groups=1, group_size=2, action_tokens=2, turns=4)
    own = suite(f"{place / 'mine.py'}:suite")
    trainer = ProgressiveTrainer(random_model(), own, stages=[stage], config=config, algorithm=algorithm)
    with pytest.raises(UserError) as caught:
        trainer.train()
    message = str(caught.value)
    assert message.startswith(f"the {'modulator' if part == 'modulators' else 'credit function'} {said}")
    assert message.endswith("finite numbers, one per decision") and "\n" not in message and len(message) < 300


@pytest.mark.parametrize("part", ["reward", "credit"])
def test_what_a_function_raises_is_one_line_that_says_where(part: str, place: Path) -> None:
    lines = len((place / "mine.py").read_text().splitlines())
    with pytest.raises(UserError) as caught:
        trained(place, "def odd(*given):\n    return given[0].nothing", **{part: "odd"})
    message = str(caught.value)
    assert message.startswith(f"the {part} function raised AttributeError: ") and "\n" not in message
    assert message.endswith(f"({place / 'mine.py'}, line {lines + 4})")
    assert isinstance(caught.value.__cause__, AttributeError), "its traceback is kept for who calls from Python"


def test_hiplans_own_errors_stay_what_they_are(place: Path) -> None:
    code = "def odd(*given):\n    from hiplan.errors import ConfigError\n    raise ConfigError('my own words')"
    with pytest.raises(ConfigError, match=r"^my own words$"):
        trained(place, code, reward="odd")


def test_a_reward_that_cannot_be_used_ends_the_command_in_one_line(place: Path, call: Call) -> None:
    with (place / "mine.py").open("a") as file:
        file.write("\n\ndef odd(episode, role):\n    pass\n")
    done = call("train", *OWN, "--set", "train.algorithm.reward=mine.py:odd")
    assert done.code == 2 and done.err.splitlines()[-1].startswith("error: the reward function returned None for the ")


def test_a_file_is_run_once_however_often_it_is_named(place: Path) -> None:
    with (place / "mine.py").open("a") as file:
        file.write("\n\nwith open('ran', 'a') as file:\n    file.write('x')\n")
    for name in ("suite", "reward", "credit"):
        named(f"mine.py:{name}", {}, "part")
    assert (place / "ran").read_text() == "x"
