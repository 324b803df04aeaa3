"""Targets: what training writes of models, and what is loaded from it."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random

import torch
from doubles import Letters, letters, random_model

from attack.core import Target, every
from attack.mutate import damaged, hostile, json_files
from hiplan.envs import TaskSuite
from hiplan.loading import load_agent, load_model, stage_facts
from hiplan.models.bases import find_model
from hiplan.models.local import LocalModel
from hiplan.models.stages import save_stage
from hiplan.runs.diagnose import Run
from hiplan.runs.measure import as_trained
from hiplan.training.config import Stage, TrainConfig
from hiplan.training.trainer import ProgressiveTrainer

STAGES = (Stage(name="joint", trains=("planner", "executor"), iterations=2, learning_rate=0.01),)
SUITE = TaskSuite("letters", Letters, lambda rng: letters(1))
CONFIG = TrainConfig(stages=STAGES, groups=2, group_size=2, plan_tokens=3, action_tokens=3, turns=1, plan_kl=0)
FIELDS = (
    "base", "about", "weights", "loaded_with", "mode", "lora", "rank", "alpha", "targets", "decoding", "revise",
    "prompts",
    "target_modules", "r", "lora_alpha", "use_dora", "brief", "tiny-v1", "all-linear", "split", "joint", "cursor",
    "metrics",
    "seed", "stage", "iteration", "total", "env_steps", "warm", "dtype", "window", "float32", "eval_turns", "never",
)  # fmt: skip


@cache
def kept() -> Path:
    """Where specimens are, as long as the process lives."""
    place = tempfile.mkdtemp(prefix="attack-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return Path(place)


@contextmanager
def copy_of(source: Path) -> Iterator[Path]:
    """A copy of a folder; its tensors, which nothing writes into, are links."""

    def copy(source: str, target: str) -> None:
        (os.symlink if source.endswith(".safetensors") else shutil.copyfile)(source, target)

    with tempfile.TemporaryDirectory() as parent:
        shutil.copytree(source, Path(parent) / "copy", copy_function=copy)
        yield Path(parent) / "copy"


def replace(path: Path, data: bytes) -> None:
    """Write another file in the place of one that may be a link."""
    path.unlink()
    path.write_bytes(data)


# -- stages and adapters ----------------------------------------------------------------------


@cache
def stage() -> Path:
    """A stage of the shipped model, untrained."""
    run = kept() / "run"
    about = {"stage": "joint", "seed": 0, "env": "mixed", "eval_turns": 9, "revise": "never"}
    about["decoding"] = {"temperature": 1.0, "plan_tokens": 32, "action_tokens": 16}
    save_stage(LocalModel.load(), run / "stages" / "joint", about)
    return run / "stages" / "joint"


def make_stage(rng: Random) -> bytes:
    return json_files((stage() / "stage.json").read_text(), own=FIELDS)(rng)


def attack_stage_facts(data: bytes) -> None:
    """Reading what the stage says of itself."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "stages" / "joint"
        place.mkdir(parents=True)
        (Path(name) / "config.yaml").write_text("seed: 1\n")
        (place / "stage.json").write_bytes(data)
        every(lambda: as_trained(stage_facts(place)), lambda: Run.read(Path(name), "joint").conditions)


def attack_stage(data: bytes) -> None:
    with copy_of(stage()) as folder:
        replace(folder / "stage.json", data)
        load_agent(folder)


def make_adapter(rng: Random) -> bytes:
    """The byte before the contents says which file they are of."""
    folder = stage() / "planner"
    if rng.random() < 0.5:
        return b"c" + json_files((folder / "adapter_config.json").read_text(), own=FIELDS)(rng)
    return b"w" + damaged_tensors(rng, (folder / "adapter_model.safetensors").read_bytes())


def attack_adapter(data: bytes) -> None:
    with copy_of(stage()) as folder:
        name = "adapter_config.json" if data[:1] == b"c" else "adapter_model.safetensors"
        replace(folder / "planner" / name, data[1:])
        load_model(planner=folder / "planner", executor=folder / "executor")


def damaged_tensors(rng: Random, data: bytes) -> bytes:
    """Safetensors with damage to the header, to the tensors, or to both."""
    size = 8 + int.from_bytes(data[:8], "little")
    head, header, body = data[:8], data[8:size], data[size:]
    roll = rng.randrange(5)
    if roll == 0:
        return damaged(rng, data)
    if roll == 1:
        return head + damaged(rng, header) + body
    if roll == 2:
        place = rng.randrange(len(body))
        return head + header + body[:place] + bytes([body[place] ^ 1 << rng.randrange(8)]) + body[place + 1 :]
    if roll == 3:
        header = json_files(header.decode(), own=("dtype", "F32", "F16", "shape", "data_offsets", "__metadata__"))(rng)
        return len(header).to_bytes(8, "little") + header + body
    return rng.choice((0, 1, 2**31, 2**63, 2**64 - 1)).to_bytes(8, "little") + header + body


def make_style(rng: Random) -> bytes:
    return json_files('{"prompts": "brief"}', own=FIELDS)(rng)


def attack_style(data: bytes) -> None:
    with copy_of(find_model("tiny-v1")) as folder:
        replace(folder / "hiplan.json", data)
        load_model(str(folder))


# -- checkpoints ------------------------------------------------------------------------------


def trainer(folder: Path) -> ProgressiveTrainer:
    torch.set_num_threads(1)
    return ProgressiveTrainer(model(), SUITE, config=CONFIG, output_dir=folder, resume=True, checkpoint_every=1)


@cache
def model() -> LocalModel:
    return random_model(seed=1)


State = Mapping[str, torch.Tensor]


@cache
def run() -> tuple[Path, tuple[State, ...]]:
    """A run with two checkpoints, and the weights that each of them holds, oldest first."""
    folder = kept() / "trained"
    trainer(folder).train()
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert len(names) == 2, names
    states = []
    for name in names:
        with copy_of(folder) as copy:
            for other in set(names) - {name}:
                shutil.rmtree(copy / "checkpoints" / other)
            states.append(trainer(copy).model.weights.state())
    return folder, tuple(states)


def make_checkpoint(rng: Random) -> bytes:
    """The byte before the contents says which file they are of, and of which checkpoint."""
    folder, _ = run()
    which = rng.choice((0, 1, 1, 1))
    newest = sorted((folder / "checkpoints").iterdir())[which]
    kind = rng.randrange(10)
    if kind < 4:
        return bytes([which * 2]) + json_files((newest / "state.json").read_text(), own=FIELDS)(rng)
    if kind < 9:
        return bytes([which * 2 + 1]) + damaged_tensors(rng, (newest / "state.safetensors").read_bytes())
    return bytes([rng.randrange(4, 8)]) + hostile(rng).encode("utf-8", "replace")


def attack_checkpoint(data: bytes) -> None:
    """A run is resumed from weights that it wrote, or it is refused; a damaged checkpoint costs no more than itself."""
    folder, states = run()
    kind, body = data[0], data[1:]
    with copy_of(folder) as copy:
        checkpoints = sorted((copy / "checkpoints").iterdir())
        name = ("state.json", "state.safetensors")[kind % 2]
        if kind < 4:
            replace(checkpoints[kind // 2] / name, body)
        elif kind < 6:  # a file is missing
            (checkpoints[1] / name).unlink()
        else:  # a stray one lies about
            stray = copy / "checkpoints" / ("999999-9" if kind == 6 else ".000009-0.tmp")
            stray.mkdir()
            (stray / name).write_bytes(body)
        model().weights.load_state({key: torch.zeros_like(tensor) for key, tensor in states[0].items()})
        resumed = trainer(copy).model.weights.state()
        same = [all(torch.equal(state[key], resumed[key]) for key in state) for state in states]
        assert any(same), "weights that the run never had were loaded"


TARGETS = (
    Target("stage.json, facts", make_stage, attack_stage_facts, 20_000, 2.0),
    Target("stage.json", make_stage, attack_stage, 3_000, 15.0),
    Target("adapter", make_adapter, attack_adapter, 800, 120.0),
    Target("hiplan.json", make_style, attack_style, 800, 80.0),
    Target("checkpoint", make_checkpoint, attack_checkpoint, 12_000, 15.0),
)
