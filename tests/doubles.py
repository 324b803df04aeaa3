"""Small stand-ins for tests: a model nothing has taught, and an environment whose reward depends on what is written."""

from collections.abc import Hashable
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from hiplan.models.bases import ModelSpec, find_model
from hiplan.models.local import LocalModel
from hiplan.models.settings import LoraSettings, WeightMode, WeightsConfig
from hiplan.models.weights import RoleWeights
from hiplan.plan import Plan, PlanStep, StepStatus
from hiplan.prompts import BRIEF
from hiplan.task import StepResult, Task
from hiplan.trace import ROLES


def random_model(
    mode: WeightMode = "split",
    seed: int = 0,
    rank: int = 4,
    window: int = 256,
    adapters: float = 0.0,
    dtype: torch.dtype = torch.float32,
    **more: Any,
) -> LocalModel:
    """A Llama of 2 layers with random weights and the shipped tokenizer.

    ``adapters``: the standard deviation of noise on the adapters, which else do nothing at the start. ``more``: other
    settings of the weights.
    """
    tokenizer = AutoTokenizer.from_pretrained(find_model("tiny-v1"), local_files_only=True)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=window, initializer_range=0.3, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings = WeightsConfig(mode=mode, lora=LoraSettings(rank=rank, alpha=2 * rank), **more)
        weights = RoleWeights(LlamaForCausalLM(config).to(dtype).eval(), settings, seed=seed + 1)
        with torch.no_grad():
            for role in ROLES:
                for parameter in weights.parameters(role).values():
                    parameter += adapters * torch.randn(parameter.shape)
    return LocalModel(weights, dict.fromkeys(ROLES, ModelSpec(tokenizer, config)), BRIEF)


def frozen(model: LocalModel) -> dict[str, torch.Tensor]:
    """The base's parameters, copied."""
    bodies = enumerate(model.weights.bodies)
    return {f"{i}.{name}": p.detach().clone() for i, body in bodies for name, p in body.frozen.items()}


class Letters:
    """Say a word that begins with a letter up to m, ``turns`` times over; each such word earns its share of 1.

    Knows an oracle and understands plans of steps "say a". ``broken`` tasks fail at their second action.
    """

    def __init__(self, task: Task) -> None:
        self.turns, self.broken = int(str(task.params.get("turns", 1))), bool(task.params.get("broken"))
        self.said: list[str] = []

    def reset(self, task: Task) -> str:
        self.said = []
        return f"say {self.turns}"

    def step(self, action: str) -> StepResult:
        if self.broken and self.said:
            raise RuntimeError("the engine broke")
        self.said.append(action)
        good = action[:1].isascii() and "a" <= action[:1].lower() <= "m"
        return StepResult("yes" if good else "no", good / self.turns, terminated=len(self.said) >= self.turns)

    def state_key(self) -> Hashable:
        return tuple(self.said)

    def close(self) -> None:
        pass

    def oracle_plan(self) -> Plan:
        steps = range(1, self.turns + 1)
        return Plan(
            goal="say", steps=tuple(PlanStep(id=i, description="say a", after=(i - 1,) * (i > 1)) for i in steps)
        )

    def oracle_action(self, step: str | None) -> str:
        return "a"

    def subgoals(self) -> dict[str, tuple[str, ...]]:
        return {"a": ()}

    def subgoal_of(self, step: str) -> str | None:
        return "a" if step == "say a" else None

    def step_status(self, step: str) -> StepStatus:
        return StepStatus.OPEN

    def serves(self, step: str, action: str) -> bool:
        return step == f"say {action}"


def letters(turns: int = 1, **params: bool | int) -> Task:
    return Task(env="letters", params={"turns": turns, **params})
