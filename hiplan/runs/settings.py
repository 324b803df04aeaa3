"""The settings of a run: defaults, overridden by a YAML file, overridden by command-line options."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hiplan.envs.tasks import PanelName
from hiplan.errors import ConfigError
from hiplan.files import parse_yaml, read_yaml
from hiplan.models.settings import DType, WeightsConfig
from hiplan.text import shorten, shown
from hiplan.training.config import TrainConfig

Config = TypeVar("Config", bound=BaseModel)


class RunConfig(BaseModel):
    """The settings of ``hiplan train``.

    ``model``: a shipped model or a folder. ``env``: ``mixed``, ``crafting``, ``household``, or a ``TaskSuite`` as
    ``module:name`` or ``file.py:name``. ``dtype``: of the base model. ``window``: the most tokens of a conversation, if
    less than the model allows. ``keep_reasoning``: whether later turns see the reasoning of a reasoning model.
    ``threads``: number of torch threads. ``weights``, ``train``: see ``WeightsConfig`` and ``TrainConfig``.

    Evaluation: ``panel_seed``: draw new panels with this seed instead of the shipped ones. ``panel_tasks``: use only
    this many tasks of each panel. ``eval_turns``: the most actions per episode. ``agents``: with plans (``plan``) and
    without (``none``). ``decodings``: the first is used for all evaluations; the untrained agent is also evaluated with
    the one that is best on dev. ``stage_panels``: the panels after each stage except the last, after which all are
    used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "tiny-v1"
    env: str = "mixed"
    seed: int = Field(default=0, ge=-(2**63), lt=2**63)  # torch's range
    panel_seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    panel_tasks: int | None = Field(default=None, ge=2)
    eval_turns: int = Field(default=30, ge=1)
    threads: int = Field(default=2, ge=1)
    dtype: DType = "auto"
    window: int | None = Field(default=None, ge=64)
    keep_reasoning: bool = True
    agents: tuple[Literal["plan", "none"], ...] = Field(default=("plan", "none"), min_length=1)
    decodings: tuple[Literal["greedy", "t0.3", "t0.7", "t1.0"], ...] = Field(
        default=("greedy", "t0.3", "t0.7", "t1.0"), min_length=1
    )
    stage_panels: tuple[PanelName, ...] = ("dev",)
    weights: WeightsConfig = WeightsConfig()
    train: TrainConfig = TrainConfig()


def resolve(file: Path | None, overrides: list[str], **options: Any) -> RunConfig:
    """The settings of a run; each overrides those before: defaults, file, named options, ``path.to.field=value``.

    Raises ``ConfigError`` for unknown fields and invalid values.
    """
    return resolved(RunConfig, file, overrides, **options)


def resolved(kind: type[Config], file: Path | None, overrides: list[str], **options: Any) -> Config:
    """``resolve`` for any settings whose fields all have defaults."""
    tree = kind().model_dump(mode="json")
    if file is not None:
        _merge(tree, _read(file), str(file))
        tree = check(tree, kind).model_dump(mode="json")  # adds the defaults of the file's stages, to be overridden
    for path, value in options.items():
        if value is not None:
            _set(tree, path.replace("__", "."), value)
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {shorten(text, 60)!r} has no '='; expected path.to.field=value")
        _set(tree, path.strip(), parse_yaml(value, f"the value in {shorten(text, 60)!r}"))
    return check(tree, kind)


def check(tree: Any, kind: type[Config]) -> Config:
    """Validate settings. Raises ``ConfigError`` with the first problem."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where, why = ".".join(map(str, first["loc"])) or "settings", first["msg"].removeprefix("Value error, ")
        got = "" if isinstance(first["input"], dict) else f", got {shown(first['input'])}"
        raise ConfigError(f"{where}: {why[:1].lower()}{why[1:]}{got}") from None


def matched(config: RunConfig, steps: int) -> RunConfig:
    """The settings with a last stage that ends when the run has taken ``steps`` environment steps in total."""
    *first, last = config.train.stages
    last = last.model_copy(update={"env_steps": steps, "iterations": 100_000})
    return config.model_copy(update={"train": config.train.model_copy(update={"stages": (*first, last)})})


def read_run(folder: Path) -> RunConfig:
    """The settings of an earlier run. Raises ``ConfigError`` if the folder has none."""
    return check(_read(folder / "config.yaml"), RunConfig)


def _read(file: Path) -> Any:
    found = read_yaml(file, "config file")
    return {} if found is None else found


def _merge(tree: dict[str, Any], over: Any, name: str) -> None:
    if not isinstance(over, dict):
        raise ConfigError(f"{name!r} has a {type(over).__name__}; expected a mapping of fields")
    for key, value in over.items():
        if key not in tree:
            raise ConfigError(f"unknown field {key!r} in {name!r}; expected one of {', '.join(tree)}")
        if isinstance(tree[key], dict) and isinstance(value, dict):
            _merge(tree[key], value, f"{name}: {key}")
        else:
            tree[key] = value


def _set(tree: Any, path: str, value: Any) -> None:
    node, parts = tree, path.split(".")
    for part in parts[:-1]:
        node = node[_key(node, part, path)]
    node[_key(node, parts[-1], path)] = value


def _key(node: Any, part: str, path: str) -> Any:
    known = _keys(node)
    if part not in known:
        raise ConfigError(
            f"unknown field {path!r}: expected one of {', '.join(known) or 'no more fields'} instead of {part!r}"
        )
    return known[part]


def _keys(node: Any) -> dict[str, Any]:
    """The path components below a node: fields of a mapping; indices and ``name`` values of a list."""
    if isinstance(node, dict):
        return {key: key for key in node}
    if isinstance(node, list):
        named = {str(item["name"]): i for i, item in enumerate(node) if isinstance(item, dict) and "name" in item}
        return named | {str(i): i for i in range(len(node))}
    return {}
