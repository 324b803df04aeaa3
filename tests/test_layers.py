"""Imports go one way, lowest layer first; modules of one layer do not import each other."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import hiplan

LAYERS = [
    "errors text",
    "files named",
    "plan task",
    "formats trace",
    "env prompts",
    "model",
    "effects",
    "envs models",  # implement the layer above this line; imported from "training" upwards only, see ``allowed``
    "executors planners",
    "coordination",
    "sampler",
    "agent",
    "loading",
    "evaluation",
    "training",
    "report",
    "runs",
    "hiplan",  # hiplan/__init__.py, the facade
    "cli",
]
RANK = {unit: rank for rank, layer in enumerate(LAYERS) for unit in layer.split()}
ROOT = Path(hiplan.__file__).parent
FILES = sorted(Path(folder, name) for folder, _, names in os.walk(ROOT, followlinks=True) for name in names)
MODULES = [path.relative_to(ROOT) for path in FILES if path.suffix == ".py"]
UNITS = {module.parts[0].removesuffix(".py") for module in MODULES} - {"__init__"}


def imports(tree: ast.AST, lazy: bool = False) -> Iterator[tuple[str, bool]]:
    """Each imported dotted name, and whether the import waits for a call or is for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; write it from hiplan on"
            yield from ((f"{node.module}.{alias.name}", lazy) for alias in node.names)
        typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        yield from imports(node, lazy or typing or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def unit_of(dotted: str) -> str:
    """The layered unit behind a name in hiplan: ``hiplan.plan.Plan`` is of ``plan``, ``hiplan.Plan`` of ``hiplan``."""
    inside = dotted.removeprefix("hiplan").lstrip(".").split(".")[0]
    return inside if inside in UNITS else "hiplan"


def allowed(importer: str, imported: str, lazy: bool) -> bool:
    if imported in ("envs", "models") and importer != imported:
        return RANK[importer] >= RANK["training"] or (lazy and importer in ("agent", "loading"))
    return importer == imported or RANK[imported] < RANK[importer]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_one_way(module: Path) -> None:
    importer = unit_of(module.parts[0].removesuffix(".py"))
    assert importer in RANK, f"{module} is in no layer; give {importer!r} a place in LAYERS"
    for name, lazy in imports(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        top = name.split(".")[0]
        assert top not in ("planners", "executors", "coordination", "experiments"), f"{module} imports bare {name}"
        if top == "hiplan":
            assert allowed(importer, unit_of(name), lazy), f"{module} may not import {name}; see LAYERS and allowed()"
