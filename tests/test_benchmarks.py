"""The benchmarks run with the code as it is; the figures they print here are too small to mean anything."""

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SMALL = {
    "env_speed.py": "--tasks 3 --repeats 1",
    "gpu.py": "--architecture tiny --device cpu --episodes 2 --turns 2 --tokens 4",
    "matching.py": "--tasks 2",
    "plan_graph.py": "--steps 30 --repeats 1",
    "rollout.py": "--episodes 2 --repeats 1 --threads 1",
    "weights.py": "--episodes 2 --repeats 1 --threads 1",
}


@pytest.mark.skipif(not FOLDER.is_dir(), reason="not in a checkout of the repository")
def test_every_benchmark_is_tried_here() -> None:
    assert sorted(path.name for path in FOLDER.glob("*.py")) == sorted(SMALL)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="not in a checkout of the repository")
@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_prints_figures(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, *SMALL[name].split()])
    runpy.run_path(str(FOLDER / name), run_name="__main__")
    assert any(character.isdigit() for character in capsys.readouterr().out)
