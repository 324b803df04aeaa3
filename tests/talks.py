"""Conversations with a local model, and what its weights make of them afterwards."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hiplan.model import Completion, Decoding, Request
from hiplan.models.local import LocalModel
from hiplan.trace import Conversation, Role
from hiplan.training.batch import Row, batches, token_logprobs

TOLERANCE = 2e-4  # nats, float32; measured: 7e-5 on tiny-v1 with noise on the adapters
CPU = torch.device("cpu")


def tokens(most: int, temperature: float = 1.0) -> Decoding:
    """At most so many tokens in an answer, whoever writes it."""
    return Decoding(temperature, most, most)


def say(
    model: LocalModel, conversation: Conversation, text: str, seed: int, decoding: Decoding, cold: bool = False
) -> Completion:
    """One more exchange; ``cold``: answered through a copy the model has never seen, so nothing of it is cached."""
    conversation.ask(text, 0)
    asked = Conversation(conversation.role, list(conversation.segments)) if cold else conversation
    (done,) = model.complete([Request(asked, decoding, seed)])
    conversation.answer(
        done.text, "action", 0, prompt_ids=done.prompt_ids, ids=done.ids, logprobs=done.logprobs, finish=done.finish
    )
    return done


def talk(model: LocalModel, role: Role, cold: bool = False, turns: int = 4) -> list[Completion]:
    conversation = Conversation(role)
    conversation.ask("begin", 0, author="system")
    return [say(model, conversation, f"turn {i} of the talk", i, tokens(3 + 2 * i), cold) for i in range(turns)]


def rescored(model: LocalModel, role: Role, rows: Sequence[Row], temperature: float = 1.0) -> float:
    """The largest gap between recorded log-probabilities and those of one forward pass with the adapter active."""
    gaps = []
    with model.weights.acting_as(role) as active, torch.no_grad():
        for batch in batches(rows, 4000, CPU):
            gaps.append((token_logprobs(active, batch, temperature) - batch.logp_old)[batch.mask].abs().max().item())
    return max(gaps)


def one_row(completion: Completion) -> Row:
    prompt, answer = list(completion.prompt_ids), list(completion.ids)
    own = [False] * len(prompt) + [True] * len(answer)
    return Row(prompt + answer, own, [0.0] * len(prompt) + list(completion.logprobs), 0.0)


def logits(model: torch.nn.Module, ids: list[int]) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits
    return out


def write(model: LocalModel, how: str) -> None:
    """Change the executor's weights in one of the ways training does."""
    parameters = model.weights.parameters("executor").values()
    if how == "load":
        model.weights.load_state({k: v + 0.1 for k, v in model.weights.state().items()})
        return
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {"AdamW": torch.optim.AdamW, "SGD": torch.optim.SGD}
    name, _, fused = how.partition(" ")
    with model.weights.acting_as("executor"):
        model.weights.train_only(("executor",))
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        kinds[name](parameters, lr=0.1, fused=bool(fused)).step()
        model.weights.train_only(())
