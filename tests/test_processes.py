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


@pytest.mark.parametrize(
    ("mode", "method", "kl", "shard"),
    [
        ("split", "lora", 0.1, "whole"),
        ("joint", "lora", 0.1, "whole"),
        ("split", "lora", 0.0, "shard"),
        ("separate", "full", 0.0, "shard"),
    ],
)
def test_two_processes_learn_what_one_learns(mode: str, method: str, kl: float, shard: str, tmp_path: Path) -> None:
    process_worker.train(tmp_path / "one", mode, method, kl)
    arguments = [tmp_path / "two", mode, method, kl, shard]
    if shard == "shard":  # stopped after an iteration, it goes on from shares put together and split again
        launch(*arguments, "stop")
    launch(*arguments)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one" / "adapters").rglob("*.safetensors"))
    assert files
    for file in files:
        one, two = load_file(tmp_path / "one" / file), load_file(tmp_path / "two" / file)
        assert one.keys() == two.keys()
        for key, value in one.items():
            gap = (two[key] - value).abs()
            assert gap.max() < 0.2 * LEARNING_RATE, key  # where a gradient is nearly zero, rounding shows
            assert gap.quantile(0.9) < 0.002 * LEARNING_RATE, key
    for left, right in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert left.keys() == right.keys()
        assert {k: pytest.approx(v, abs=1e-3) if isinstance(v, float) else v for k, v in left.items()} == right


def launch(*arguments: Any) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", HERE / "process_worker.py"]
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, [*command, *arguments])), env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(re.findall(r"\d/\d", done.stdout)) == ["0/2", "1/2"]
