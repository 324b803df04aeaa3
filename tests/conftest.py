"""Settings for the whole suite: no network, no telemetry, one thread (also in subprocesses), repeatable examples."""

import os
from pathlib import Path
from typing import Any

# Before any test module imports transformers or torch, which read these once.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",  # torch's intra-op threads; two on two busy cores are far slower than one, and sums differ
)

import pytest
from commands import Call, Done
from hypothesis import settings
from wheels import build_wheels

settings.register_profile("hiplan", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("hiplan")


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command in this process, in a terminal of 160 columns."""
    from hiplan.cli.app import app as hiplan
    from hiplan.cli.app import run

    monkeypatch.setenv("COLUMNS", "160")

    def called(*options: str | Path, app: Any = hiplan) -> Done:
        capfd.readouterr()
        code = run(lambda: app([str(option) for option in options]))
        return Done(code, *capfd.readouterr())

    return called


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """See ``build_wheels``."""
    return build_wheels(tmp_path_factory.mktemp("packaging"))
