"""Optional warm start: supervised learning from demonstrations before reinforcement learning.

TRL's ``SFTTrainer`` receives token rows, not texts: the tokens are exactly those of a rollout, and only the role's own
tokens carry loss. There is one training run per set of weights. With joint weights both roles are trained together;
with split weights each role's adapter is trained separately.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from hiplan.errors import ConfigError
from hiplan.executors import OracleExecutor, WrittenExecutor
from hiplan.model import ScriptedModel
from hiplan.models.local import LocalModel
from hiplan.planners import NoPlanner, OraclePlanner, WrittenPlanner
from hiplan.sampler import Job, Sampler
from hiplan.task import Task
from hiplan.trace import ROLES, Episode, Role, StopReason
from hiplan.training.batch import Row


def warm_start(
    model: LocalModel,
    episodes: Sequence[Episode],
    roles: Sequence[Role] = ROLES,
    *,
    epochs: int = 1,
    learning_rate: float = 4e-4,
    batch_size: int = 8,
    seed: int = 0,
) -> dict[str, float]:
    """Train ``roles`` to imitate their answers in ``episodes``; the weights of other roles do not change.

    Episodes may have token ids (sampled from a model) or only text (from a person or an oracle). ``batch_size`` counts
    conversations. Returns, per set of weights, the mean training loss (nats per token) and the number of trained
    tokens. Afterwards no parameter requires gradients, as after loading. Raises ``ConfigError`` if the episodes have no
    answer by one of the roles.
    """
    weights, out = model.weights, dict[str, float]()
    for units in dict.fromkeys(weights.units[role] for role in roles):
        sharing = tuple(role for role in roles if weights.units[role] == units)
        rows = [row for role in sharing for row in demonstration_rows(model, episodes, role)]
        with weights.acting_as(sharing[0]) as active:
            weights.train_only(tuple(roles))
            try:
                tokenizer = model.specs[sharing[0]].tokenizer
                out[f"loss_{units[-1]}"] = _fit(active, tokenizer, rows, epochs, learning_rate, batch_size, seed)
            finally:
                weights.train_only(())
        out[f"tokens_{units[-1]}"] = sum(label >= 0 for _, labels in rows for label in labels[1:])
    return out


def demonstration_rows(model: LocalModel, episodes: Sequence[Episode], role: Role) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels (-100: no loss), rows as in ``Row.of``, cut at the model's context window.

    Raises ``ConfigError`` if the episodes have no answer by the role.
    """
    spec = model.specs[role]
    found: list[tuple[list[int], list[bool]]] = []
    for conversation in (c for e in episodes for c in e.exchanges(role)):
        if any(segment.dropped for segment in conversation.segments):  # later turns did not see earlier reasoning
            found += [(row.ids, row.trained) for row in Row.of(conversation)]
        else:
            found.append(spec.codec.row(conversation))
    cut = [(ids[: spec.window], own[: spec.window]) for ids, own in found]
    rows = [(ids, [i if o else -100 for i, o in zip(ids, own, strict=True)]) for ids, own in cut if any(own[1:])]
    if not rows:
        raise ConfigError(
            f"the {len(episodes)} demonstrations have no answer by the {role}; expected conversations such as those of "
            "oracle_demonstrations; leave the role out of roles"
        )
    return rows


def oracle_demonstrations(tasks: Sequence[Task], sampler: Sampler, *, no_plan: float = 0.15) -> list[Episode]:
    """Episodes in which the environment's oracle plans and acts, with the prompts of the sampler's model.

    ``no_plan``: the share of tasks played without a plan, so that the executor also learns to act without one. At a
    request for a revision, the oracle keeps the plan unless its own plan has changed. Unsolved episodes are left out.
    Raises ``ConfigError`` if the oracle solves none of the tasks.
    """
    prompts = sampler.model.prompts
    planner, executor = WrittenPlanner(OraclePlanner(), prompts), WrittenExecutor(OracleExecutor(), prompts)
    bare = [int((i + 1) * no_plan) > int(i * no_plan) for i in range(len(tasks))]
    jobs = [Job(task, NoPlanner() if b else planner, executor) for task, b in zip(tasks, bare, strict=True)]
    episodes = replace(sampler, model=ScriptedModel([])).run(jobs)
    solved = [episode for episode in episodes if episode.success]
    if not solved:
        kinds = ", ".join(sorted({task.env for task in tasks})) or "none"
        if any(episode.stop is StopReason.TURN_LIMIT and episode.turns for episode in episodes):
            raise ConfigError(
                f"the oracle solved none of {len(tasks)} tasks within {sampler.limits.turns} turns; raise turns"
            )
        raise ConfigError(
            f"the oracle solved none of {len(tasks)} tasks (environments: {kinds}); expected an environment with "
            "oracle_plan and oracle_action; without one, pass your own demonstrations to warm_start"
        )
    return solved


class _SilentTrainer(SFTTrainer):
    """Sends no telemetry; TRL reads its own switch only once, at import."""

    def _send_telemetry(self) -> None:
        return None


def _fit(
    active: Any,
    tokenizer: Any,
    rows: Sequence[tuple[list[int], list[int]]],
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> float:
    """Train the parameters of ``active`` that require gradients and restore its other state; returns the mean loss."""
    base = active.get_base_model() if hasattr(active, "get_base_model") else active
    forward, use_cache = base.__dict__.get("forward"), base.config.use_cache
    data = Dataset.from_list([{"input_ids": ids, "labels": labels} for ids, labels in rows])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TRL and transformers warn about each other
        settings = SFTConfig(
            output_dir=folder,  # TRL makes this folder; nothing is written to it
            num_train_epochs=epochs,
            learning_rate=learning_rate,
            per_device_train_batch_size=batch_size,
            seed=seed,
            max_length=None,
            optim="adamw_torch",
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            use_cpu=active.device.type == "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        try:
            trainer = _SilentTrainer(active, settings, train_dataset=data, processing_class=tokenizer)
            trainer.remove_callback(PrinterCallback)
            return float(trainer.train().training_loss)
        finally:
            active.eval()
            base.config.use_cache = use_cache
            base.__dict__.pop("forward", None)  # TRL sets its fused head on the instance
            if forward is not None:
                base.forward = forward
