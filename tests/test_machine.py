"""What a run records of its machine and its commit."""

import subprocess
from pathlib import Path

import pytest

from hiplan.runs.machine import commit, cpu_name, machine


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit that holds a package."""
    package = tmp_path / "repo" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(tmp_path, "init", "-q", "repo")
    git(package, "add", ".")
    git(package, "commit", "-q", "-m", "first")
    return package


def test_the_commit_of_the_checkout_that_runs(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert commit(checkout) == head
    (checkout / "notes.txt").write_text("untracked files change no code")
    assert commit(checkout) == head
    (checkout / "__init__.py").write_text("x = 1\n")
    assert commit(checkout) == f"{head} with uncommitted changes"


def test_a_package_installed_inside_another_repository_has_no_commit(checkout: Path, tmp_path: Path) -> None:
    installed = checkout.parent / ".venv" / "hiplan"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert commit(installed) is None
    (tmp_path / "alone").mkdir()
    assert commit(tmp_path / "alone") is None and commit(tmp_path / "absent") is None


def test_without_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit(checkout) is None


def test_the_processor_has_a_name(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nprocessor\t: 1\nmodel name\t: Some CPU @ 3 GHz\n")
    assert cpu_name(info) == "Some CPU @ 3 GHz"
    assert cpu_name(tmp_path / "absent"), "the architecture at least"


def test_a_run_says_what_its_times_depend_on() -> None:
    about = machine()
    assert about["cores"] >= 1 and about["memory_gib"] > 0 and about["cpu"]
    assert {"hiplan", "torch", "transformers"} <= set(about["versions"])
