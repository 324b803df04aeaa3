"""Targets: the files that hiplan reads, but for those of trained models (``weights.py``)."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from random import Random
from unittest import mock

from rich.console import Console

import hiplan.cli.app as cli
from attack.core import Target, check_terminal, every
from attack.mutate import damaged, encoded, hostile, json_files, line_files, mutated, texts
from experiments.run import app as run_app
from hiplan.coordination import PlanScore
from hiplan.envs.tasks import Panel, fresh_panel
from hiplan.errors import HiplanError
from hiplan.report import markdown_table, results_table, transcript
from hiplan.report.diagnostics import read_diagnostics, write_diagnostics
from hiplan.report.files import read_episodes
from hiplan.report.overview import overview
from hiplan.runs.cells import read_cell
from hiplan.runs.job import read_metrics
from hiplan.runs.plan_journal import Journal, Line, PlanSettings, Tried
from hiplan.runs.settings import read_run, resolve
from hiplan.trace import Episode
from hiplan.training.metrics import MetricsLog
from hiplan.training.sources import PlanFileLine, from_file

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@contextmanager
def folder(**files: bytes) -> Iterator[Path]:
    """A fresh folder with these files; ``metrics__jsonl`` is ``metrics.jsonl``."""
    with tempfile.TemporaryDirectory() as name:
        for file, data in files.items():
            (Path(name) / file.replace("__", ".")).write_bytes(data)
        yield Path(name)


@cache
def episodes() -> tuple[str, ...]:
    """Golden episodes, a line of JSON each."""
    return tuple(json.dumps(json.loads(path.read_text())) for path in sorted(GOLDEN.glob("[ch]*ing-*.json")))


# -- settings ---------------------------------------------------------------------------------

YAML = (
    "!!int ''", "!!float x", "!!binary ###", "!!timestamp 2024-99-99", "2024-99-99", "!!python/object:os.system x",
    "!!set {a, b}", "!!omap [a: 1]", "&a [*a]", "*a", "<<: *a", "? [a]\n: b", "- ", "---\n", "...\n", "\t", "0o17",
    "12:30:45",
    "{", "[", "[" * 5000, "{a: " * 2000, "'", '"', "|\n", ">\n", "#", "%YAML 9.9\n", "null", "~", ".nan", "-.inf",
    "yes",
    "train", "stages", "name", "seed", "groups", "joint", "weights", "mode", "split", "lora", "decodings", "greedy",
    ": ",
)  # fmt: skip
SETTINGS = (
    "model: tiny-v1\nseed: 3\npanel_tasks: 4\ndecodings: [greedy, t0.7]\n"
    "weights: {mode: split, lora: {rank: 4, alpha: 8}}\n",
    "train:\n  groups: 2\n  stages:\n  - name: joint\n    trains: [planner, executor]\n    iterations: 2\n"
    "    rewards:\n      adherence: 0.2\n  temperature: 0.5\nstage_panels: [dev]\nwindow: null\n",
)
OVERRIDES = (
    "train.groups=6", "train.stages.joint.iterations=100", "train.stages.0.name=first", "seed=7", "weights.mode=joint",
    "weights.lora={rank: 8, alpha: 16}", "train.stages=[{name: a, trains: [executor], iterations: 1}]",
    "decodings=[greedy]",
)  # fmt: skip


def aliases(rng: Random) -> str:
    """Nested aliases: a few lines that expand to very many values."""
    width, depth = rng.choice((2, 9)), rng.choice((3, 6, 9, 25))
    rows = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width if i else ['x'] * width)}]" for i in range(depth)]
    return "\n".join(rows) + f"\n{rng.choice(('train', 'seed', 'decodings', 'model'))}: *a{depth - 1}\n"


def make_settings(rng: Random) -> bytes:
    roll = rng.random()
    if roll < 0.003:
        return encoded(aliases(rng))
    text = rng.choice(SETTINGS)
    if roll < 0.6:
        return encoded(mutated(rng, text, YAML))
    return damaged(rng, encoded(text)) if roll < 0.85 else encoded(hostile(rng, YAML))


def attack_settings(data: bytes) -> None:
    with folder(config__yaml=data) as run:
        every(lambda: resolve(run / "config.yaml", ["seed=1"]), lambda: read_run(run))


def make_override(rng: Random) -> str:
    if rng.random() < 0.002:
        return f"train.stages={{{', '.join(aliases(rng).splitlines())}}}"
    return texts(*OVERRIDES, own=(*YAML, "=", ".", *OVERRIDES))(rng)


def attack_override(text: str) -> None:
    resolve(None, [text])


# -- tasks and plans --------------------------------------------------------------------------

TASKS = [task.model_dump() for task in fresh_panel("train", 1, size=3).tasks]
PANEL = json.dumps({"name": "mine", "tasks": TASKS})
FIELDS = ("env", "params", "seed", "kind", "places", "depth", "recipes", "goal", "plan", "task", "steps", "crafting")
PLAN_LINES = tuple(json.dumps({"task": task, "plan": "1. make plank\n2. make door after 1"}) for task in TASKS)
PLAN_SETTINGS = PlanSettings(model="m")


def attack_panel(data: bytes) -> None:
    with folder(panel=data) as place:
        panel = Panel.read(place / "panel")
    assert len(panel.hash) == 12 and all(task.id for task in panel.tasks)


def attack_plan_file(data: bytes) -> None:
    with folder(plans=data) as place:
        source, tasks = from_file(place / "plans")
    assert None not in source(tasks, 0)


@cache
def journal() -> tuple[str, ...]:
    """A journal of two batches."""
    plan = PlanFileLine.model_validate_json(PLAN_LINES[0])
    tried = Tried(round=0, plan=plan.plan, passes=True, scores=PlanScore(5.0, 5.0, 5.0))
    lines = [Line(task=plan.task, kept=kept, plans=(tried,), left=left) for kept, left in ((0, 1), (None, 0), (0, 0))]
    return PLAN_SETTINGS.model_dump_json(), *(line.model_dump_json() for line in lines)


def attack_journal(data: bytes) -> None:
    """What is read is read again alike, and a cut file is no error: a kill leaves one."""
    with folder(plans__scores__jsonl=data) as place:
        try:
            lines = Journal(place / "plans", PLAN_SETTINGS).lines
        except HiplanError:
            assert not encoded("\n".join(journal())).startswith(data), "a journal that was cut short was refused"
            raise
        assert Journal(place / "plans", PLAN_SETTINGS).lines == lines


# -- what runs write --------------------------------------------------------------------------

COSTS = {"calls": 3.0, "read": 80.0, "written": 9.0, "solved": "01"}
METRICS = tuple(
    json.dumps(row)
    for row in (
        {"kind": "eval", "stage": "base", "iteration": 0, "env_steps": 0, "panel": "dev", "agent": "plan",
         "decoding": "greedy", "success": 0.5, "low": 0.1, "high": 0.9, "n": 2, "adherence": None, "turns": 3.0,
         **COSTS},
        {"kind": "train", "stage": "joint", "iteration": 0, "success": 0.5, "adherence": 0.4, "coverage": None,
        "turns": 2.0,
         "revisions": 0.5, "episodes": 4, "faults": 0, "env_steps": 9, "reward_planner": 0.1, "entropy_executor": 0.3},
        {"kind": "eval", "stage": "joint", "iteration": 1, "env_steps": 9, "panel": "heldout", "agent": "plan",
         "decoding": "greedy", "success": 1.0, "low": None, "high": None, "n": 2, "adherence": 1.0, "turns": 2.5,
         **COSTS},
    )
)  # fmt: skip
TIMES = tuple(json.dumps({"row": i, "elapsed_s": 1.5 * i, "rollout_s": 0.5}) for i in (1, 2, 3))
KEYS = (
    "kind",
    "eval",
    "train",
    "stage",
    "iteration",
    "panel",
    "dev",
    "agent",
    "success",
    "low",
    "n",
    "elapsed_s",
    "wall_s",
)
DIAGNOSTICS = json.dumps(
    {"title": "Is it used?", "about": "`command`", "sections": [
        {"title": "Success", "note": "n", "head": ["plan", "seed 0"], "rows": [["own", "12 %"], ["none", "–"]],
         "picture": None}
    ]}
)  # fmt: skip


def attack_metrics(data: bytes) -> None:
    """Rows that the checkpoint counts are all there, or the run is refused."""

    def resumed(run: Path) -> None:
        log = MetricsLog(run, 2)
        assert log.length == 2, "rows that the checkpoint counts are lost"
        results_table(log.rows)
        markdown_table(log.rows)

    with folder(metrics__jsonl=data) as run:
        every(lambda: read_metrics(run), lambda: resumed(run))


def attack_times(data: bytes) -> None:
    """A file that was cut short is no error: a full disk makes one."""
    with folder(metrics__jsonl=encoded("\n".join((*METRICS, ""))), times__jsonl=data) as run:
        try:
            log = MetricsLog(run, len(METRICS))
        except HiplanError:
            assert not encoded("".join(f"{line}\n" for line in TIMES)).startswith(data), "cut times were refused"
            raise
        log.add({"kind": "train"}, rollout_s=0.1)
        MetricsLog(run, len(METRICS) + 1)


def attack_transcripts(data: bytes) -> None:
    with folder(transcripts__jsonl=data) as run:
        found = read_episodes(run / "transcripts.jsonl")
    with StringIO() as out:
        Console(file=out, width=100).print(overview(dict(enumerate(found))))
        check_terminal(out.getvalue() + "".join(map(transcript, found)))


def attack_episode(data: bytes) -> None:
    """What is read can be written and read again."""
    text = Episode.from_json(data.decode("utf-8", "surrogatepass")).to_json()
    assert Episode.from_json(text).to_json() == text


def attack_diagnostics(data: bytes) -> None:
    with folder(diagnostics__json=data) as run:
        found = read_diagnostics(run)
        if found:
            check_markdown(write_diagnostics(run, found))


def check_markdown(text: str) -> None:
    """No HTML is in it: nothing else writes any."""
    assert not (tag := re.search(r"<[a-zA-Z/!?]", text)), f"raw HTML: {text[tag.start() : tag.start() + 40]!r}"


def attack_kept(data: bytes) -> None:
    with folder(cell__json=data) as place:
        assert isinstance(read_cell(place / "cell.json"), dict)


# -- commands ---------------------------------------------------------------------------------


def make_command(rng: Random) -> bytes:
    """A folder's name and a file in it."""
    name = encoded(hostile(rng)).replace(b"\0", b"").replace(b"/", b"")[:200]
    return name + b"\0" + rng.choice((line_files(*episodes())(rng), json_files(DIAGNOSTICS)(rng), b""))


def attack_command(data: bytes) -> None:
    """Both commands end with an exit code, and print nothing that controls a terminal."""
    name, _, rest = data.partition(b"\0")
    with tempfile.TemporaryDirectory() as parent:
        run = Path(parent) / os.fsdecode(name)
        if rest:
            run.mkdir(parents=True, exist_ok=True)
            file = "transcripts.jsonl" if data[-1] % 2 else "diagnostics.json"
            (run / file).write_bytes(rest)
        for command in ("inspect", "report"):
            printed(lambda: cli.run(cli.app), [command, "--", str(run)])


def attack_show_config(text: str) -> None:
    printed(lambda: cli.run(run_app), ["--show-config", "--set", text])


def printed(run: Callable[[], object], arguments: list[str]) -> None:
    """Run a command in this process; it must print nothing that controls a terminal."""
    with (
        StringIO() as out,
        redirect_stdout(out),
        redirect_stderr(out),
        mock.patch.object(sys, "argv", ["hiplan", *arguments]),
    ):
        try:
            code = run()
        except SystemExit as ended:
            code = ended.code
        assert code in (0, 1, 2, None), f"exit code {code!r}"
        check_terminal(out.getvalue())


TARGETS = (
    Target("config file", make_settings, attack_settings, 40_000, 5.0),
    Target("config override", make_override, attack_override, 70_000, 0.3),
    Target("panel file", json_files(PANEL, own=FIELDS), attack_panel, 60_000, 0.3),
    Target("plan file", line_files(*PLAN_LINES, own=FIELDS), attack_plan_file, 50_000, 0.4),
    Target("plan journal", line_files(*journal(), own=FIELDS), attack_journal, 30_000, 1.0),
    Target("metrics.jsonl", line_files(*METRICS, own=KEYS), attack_metrics, 40_000, 0.6),
    Target("times.jsonl", line_files(*TIMES, own=KEYS), attack_times, 40_000, 0.6),
    Target("transcripts.jsonl", line_files(*episodes()), attack_transcripts, 20_000, 8.0),
    Target("episode", json_files(*episodes()), attack_episode, 40_000, 0.5, (ValueError,)),
    Target("diagnostics.json", json_files(DIAGNOSTICS, own=KEYS), attack_diagnostics, 40_000, 0.5),
    Target("study cell", json_files('{"cell": "0123", "results": {}}'), attack_kept, 30_000, 0.3),
    Target("hiplan inspect and report", make_command, attack_command, 3_000, 40.0),
    Target("run.py --show-config", make_override, attack_show_config, 3_000, 20.0),
)
