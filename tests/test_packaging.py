"""What gets installed: every file once, inside the ``hiplan`` namespace, and light to import."""

import os
import tomllib
import zipfile
from pathlib import Path

from wheels import REPOSITORY, called, from_sources, python

import hiplan

ROLES = ("planners", "executors", "coordination")
HEAVY = ("accelerate", "datasets", "matplotlib", "numpy", "pandas", "peft", "torch", "transformers", "trl")


@from_sources
def test_the_declared_packages_are_those_on_disk() -> None:
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = (Path(folder) for folder, _, files in os.walk(REPOSITORY / "hiplan", followlinks=True) if files)
    found = (folder.relative_to(REPOSITORY).parts for folder in folders if folder.name != "__pycache__")
    assert declared["packages"] == sorted(".".join(parts) for parts in found if "assets" not in parts)
    for role in ROLES:
        assert (REPOSITORY / "hiplan" / role).readlink() == Path("..", role)
        assert declared["package-dir"][f"hiplan.{role}"] == role


@from_sources
def test_a_wheel_holds_each_file_of_the_library_once_and_nothing_else(wheels: list[Path]) -> None:
    source = wheels[0].parents[1] / "source"
    files = {Path(folder, name) for folder, _, names in os.walk(source / "hiplan", followlinks=True) for name in names}
    expected = sorted(file.relative_to(source).as_posix() for file in files)
    for wheel in wheels:
        names = zipfile.ZipFile(wheel).namelist()
        assert sorted(name for name in names if ".dist-info/" not in name) == expected
    assert len(wheels) == 2


@from_sources
def test_folders_of_an_app_do_not_shadow_the_installed_role_packages(wheels: list[Path], tmp_path: Path) -> None:
    library, app = tmp_path / "library", tmp_path / "app"
    called("pip", "install", "--quiet", "--no-deps", "--no-index", "--target", library, wheels[0])
    for name in (*ROLES, "experiments"):
        (app / name).mkdir(parents=True)
        (app / name / "__init__.py").write_text("raise RuntimeError('the folder of the app was imported')\n")
    modules = ["hiplan", *(f"hiplan.{role}" for role in ROLES)]
    printed = python(f"import {', '.join(modules)}\nfor m in ({', '.join(modules)}): print(m.__file__)", library, app)
    assert printed.split() == [str(library.joinpath(*m.split("."), "__init__.py")) for m in modules]


def test_importing_hiplan_is_quick_and_loads_nothing_heavy(tmp_path: Path) -> None:
    library = Path(hiplan.__file__).parents[1]
    code = "import time; t = time.perf_counter(); import hiplan; print(time.perf_counter() - t)"
    code += "; import sys; print(*sys.modules)"
    runs = [python(code, library, tmp_path).split() for _ in range(3)]
    assert not set(HEAVY).intersection(runs[0])
    assert min(float(seconds) for seconds, *_ in runs) < 0.5


def test_what_an_app_uses_loads_nothing_heavy(tmp_path: Path) -> None:
    code = "import hiplan.planners, hiplan.executors, hiplan.coordination, hiplan.sampler, hiplan.envs, sys"
    loaded = python(f"{code}; print(*sys.modules)", Path(hiplan.__file__).parents[1], tmp_path).split()
    assert not set(HEAVY).intersection(loaded)
