"""Wheels of the repository, and interpreters that see one of them in place of the checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# `make release-check` runs the suite against an installed wheel, where there is nothing to build.
from_sources = pytest.mark.skipif(not (REPOSITORY / "planners").is_dir(), reason="not in a checkout of the repository")


def build_wheels(place: Path) -> list[Path]:
    """Two wheels: from the tree (a copy of it, where no stale build/ lies), and from an sdist of it."""
    junk = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")

    def ignored(folder: str, names: list[str]) -> set[str]:
        return junk(folder, names) | ({"runs"} if Path(folder) == REPOSITORY else set())

    source = shutil.copytree(REPOSITORY, place / "source", symlinks=True, ignore=ignored)
    called("build", "--no-isolation", "--wheel", "--outdir", place / "tree", source)
    called("build", "--no-isolation", "--outdir", place / "sdist", source)
    return [*place.glob("tree/*.whl"), *place.glob("sdist/*.whl")]


def environment_with(wheel: Path, folder: Path) -> Path:
    """A fresh virtual environment with the wheel installed; all else comes from where this process has it.

    Returns the folder of its programs.
    """
    called("venv", "--without-pip", folder)
    programs = folder / "bin"
    (libraries,) = folder.glob("lib/python*/site-packages")
    known = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (libraries / "dependencies.pth").write_text("\n".join(known) + "\n")  # their own .pth files are not read
    called("pip", "--python", programs / "python", "install", "--quiet", "--no-deps", "--no-index", wheel)
    return programs


def python(code: str, library: Path, cwd: Path) -> str:
    """Run ``code`` in a fresh interpreter that finds hiplan in the folder ``library``; return what it printed."""
    return finished([sys.executable, "-c", code], cwd, {"PYTHONPATH": str(library)})


def called(module: str, *arguments: str | Path) -> None:
    """Run one of this interpreter's modules."""
    finished([sys.executable, "-m", module, *map(str, arguments)])


def finished(command: list[str], cwd: Path | None = None, variables: dict[str, str] | None = None) -> str:
    """What a command printed that must succeed."""
    done = subprocess.run(command, cwd=cwd, env=os.environ | (variables or {}), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
