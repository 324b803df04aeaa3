"""Two gloo processes that train together do what one does with the same batch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import process_worker
import pytest
import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent
TOLERANCE = 2e-5  # of an adapter's entries; Adam's first steps are of the size of the learning rate, 0.01


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("mode", ["split", "joint"])
def test_two_processes_learn_what_one_learns(mode: str, tmp_path: Path) -> None:
    process_worker.train(tmp_path / "one", mode)
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", str(HERE / "process_worker.py")]
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(tmp_path / "two"), mode], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one" / "adapters").rglob("*.safetensors"))
    assert files
    for file in files:
        one, two = load_file(tmp_path / "one" / file), load_file(tmp_path / "two" / file)
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=0, atol=TOLERANCE, msg=key)
    for left, right in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert left.keys() == right.keys()
        assert {k: pytest.approx(v, abs=1e-3) if isinstance(v, float) else v for k, v in left.items()} == right
