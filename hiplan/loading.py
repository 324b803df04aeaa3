"""Load a local model, or a trained agent from a stage folder; torch is imported only when it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplan.agent import Agent
from hiplan.coordination import Limits, Matcher, ReplanPolicy
from hiplan.coordination.matching import MATCHERS
from hiplan.coordination.replan import REPLAN_POLICIES
from hiplan.env import EnvFactory
from hiplan.errors import ConfigError
from hiplan.model import Decoding
from hiplan.named import name_of, named
from hiplan.sampler import Sampler
from hiplan.trace import Role

if TYPE_CHECKING:
    from hiplan.models.local import LocalModel


def load_model(
    name: str = "tiny-v1",
    checkpoint: str | Path | None = None,
    *,
    planner: str | Path | None = None,
    executor: str | Path | None = None,
    trained: bool = True,
) -> LocalModel:
    """Load a local model for ``Agent``.

    ``name``: a shipped model or a folder with a Hugging Face model. ``checkpoint``: a stage folder of a training run,
    which names its base model; give it alone. ``planner``, ``executor``: LoRA adapters in PEFT's format for the base
    ``name``; a role without an adapter uses the base. ``trained=False`` loads a stage's model without its training.

    Raises ``ConfigError`` if there is no such model or ``hiplan[train]`` is not installed, and ``CheckpointError`` if
    the checkpoint is damaged.
    """
    try:
        from hiplan.models.local import LocalModel
        from hiplan.models.stages import load_adapters, load_stage
    except ImportError as error:
        raise ConfigError(
            f"a local model needs torch, transformers and peft ({error}); install them with pip install 'hiplan[train]'"
        ) from None
    if checkpoint is not None:
        if name != "tiny-v1" or planner is not None or executor is not None:
            raise ConfigError(
                f"checkpoint {str(checkpoint)!r} comes with its own base model and both roles; give it alone, or give "
                "name, planner and executor without it"
            )
        return load_stage(Path(checkpoint), trained)
    adapters: dict[Role, Path] = {}
    if planner is not None:
        adapters["planner"] = Path(planner)
    if executor is not None:
        adapters["executor"] = Path(executor)
    return load_adapters(name, adapters) if adapters else LocalModel.load(name)


def load_agent(
    stage: str | Path,
    *,
    make_env: EnvFactory | None = None,
    temperature: float = 0.0,
    replan: ReplanPolicy | None = None,
    matcher: Matcher | None = None,
    trained: bool = True,
) -> Agent:
    """Load the agent of a stage folder with its weights, prompts, token limits, replan policy, matcher and turn limit.

    ``make_env`` defaults to hiplan's embedded environments. ``replan`` and ``matcher`` are required if the stage was
    trained with functions that have no name. ``trained=False`` loads the agent without its training.

    Raises ``CheckpointError`` if the stage is damaged and ``ConfigError`` if a required function is missing.
    """
    about = stage_facts(Path(stage))
    model = load_model(checkpoint=stage, trained=trained)
    known = about.get("decoding") or {}
    limits = {key: known[key] for key in ("plan_tokens", "action_tokens") if key in known}
    if replan is None:
        replan = named(_name(about, "replan", about.get("revise", "on_failure")), REPLAN_POLICIES, "replan policy")
    if matcher is None:
        matcher = named(_name(about, "matcher", "best_known"), MATCHERS, "matcher")
    turns = about.get("eval_turns", about.get("turns", Limits().turns))
    return Agent(
        model, make_env=make_env, decoding=Decoding(temperature=temperature, **limits), replan=replan, matcher=matcher,
        limits=Limits(turns=turns),
    )  # fmt: skip


def stage_facts(stage: Path) -> dict[str, Any]:
    """The facts that a stage folder records about its training. Raises ``CheckpointError`` if it is not a stage."""
    from hiplan.models.stages import read_stage  # needs torch

    return read_stage(stage).about


def sampler_facts(sampler: Sampler) -> dict[str, Any]:
    """The settings of a sampler that a stage stores for ``load_agent``; ``None`` for a function that has no name."""
    return {
        "decoding": vars(sampler.decoding),
        "replan": name_of(sampler.replan, REPLAN_POLICIES),
        "matcher": name_of(sampler.matcher, MATCHERS),
        "turns": sampler.limits.turns,
    }


def _name(about: dict[str, Any], key: str, default: str) -> str:
    name = about.get(key, default)
    if name is None:
        raise ConfigError(f"the stage was trained with a {key} function that has no name; pass the function as {key}=")
    return str(name)
