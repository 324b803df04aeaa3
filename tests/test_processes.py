"""Two gloo processes that train together do what one does with the same batch."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import process_worker
import pytest
from safetensors.torch import load_file

HERE = Path(__file__).parent
LEARNING_RATE = 0.01  # the size of Adam's first steps, whatever the gradient's


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


CASES: dict[str, dict[str, Any]] = {
    "split": {"mode": "split", "kl": 0.1},
    "joint": {"mode": "joint", "kl": 0.1},
    "split, sharded": {"mode": "split", "kl": 0.0, "shard": True},
    "separate in full, sharded": {"mode": "separate", "method": "full", "kl": 0.0, "shard": True},
}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made of each case, in a folder of its own.

    Sharded ones are stopped after an iteration; other processes resume from shares put together and split again.
    """
    folder = tmp_path_factory.mktemp("two")
    cases = [{"folder": str(folder / name), **case} for name, case in CASES.items()]
    launch([case | {"stop": bool(case.get("shard"))} for case in cases])
    launch([case for case in cases if case.get("shard")])
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_what_one_learns(name: str, two: Path, tmp_path: Path) -> None:
    process_worker.train(tmp_path, **(CASES[name] | {"shard": False}))
    files = sorted(p.relative_to(tmp_path) for p in (tmp_path / "adapters").rglob("*.safetensors"))
    assert files
    for file in files:
        one, other = load_file(tmp_path / file), load_file(two / name / file)
        assert one.keys() == other.keys()
        for key, value in one.items():
            gap = (other[key] - value).abs()
            assert gap.max() < 0.2 * LEARNING_RATE, key  # where a gradient is nearly zero, rounding shows
            assert gap.quantile(0.9) < 0.002 * LEARNING_RATE, key
    for left, right in zip(rows(tmp_path), rows(two / name), strict=True):
        assert left.keys() == right.keys()
        assert {k: pytest.approx(v, abs=1e-3) if isinstance(v, float) else v for k, v in left.items()} == right


def launch(cases: list[dict[str, Any]]) -> None:
    """Run the cases, one after the other, in two processes that are started together."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(HERE / "process_worker.py")]
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, json.dumps(cases)], env=environment, capture_output=True, text=True, timeout=480)
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(re.findall(r"\d/\d", done.stdout)) == ["0/2"] * len(cases) + ["1/2"] * len(cases)
