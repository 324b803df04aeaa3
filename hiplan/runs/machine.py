"""Facts that results and times depend on besides the settings: the machine, package versions, and the commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

PACKAGES = ("hiplan", "torch", "transformers", "peft", "accelerate", "numpy")
SOURCE = Path(__file__).parents[1]


def machine() -> dict[str, Any]:
    """Processor, usable cores, memory in GiB, GPU, platform, and package versions.

    ``commit`` is included if the package runs from a git checkout.
    """
    about = {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }
    if torch.cuda.is_available():
        about["gpu"] = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    known = commit(SOURCE)
    about |= {"commit": known} if known else {}
    about |= {"platform": platform.platform(), "python": platform.python_version()}
    return about | {"versions": {name: version(name) for name in PACKAGES}}


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model name, or else its architecture."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [
        value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip() == "model name"
    ]
    return models[0] if models else platform.processor() or platform.machine()


def commit(source: Path) -> str | None:
    """The commit of the git checkout that tracks ``source``, marked if tracked files are modified; else ``None``.

    A package in a virtual environment inside another repository is not tracked by that repository.
    """
    if _git(source, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    found = _git(source, "rev-parse", "HEAD")
    changed = _git(source, "status", "--porcelain", "--untracked-files=no")
    return f"{found} with uncommitted changes" if found and changed else found


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of a git command; ``None`` if git is missing or fails."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
