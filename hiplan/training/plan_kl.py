"""A cheap proxy of plan reliance: how much the executor's words depend on which plan it reads.

On logged states, the KL divergence of its next-token distribution under its own plan from that under another task's,
averaged over the tokens of its answers. Near 0 it ignores the plan; unlike success under swapped plans
(``evaluation.reliance``) it needs no episodes, and says nothing about whether following would help.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hiplan.evaluation.diagnostics import first_plans, swapped
from hiplan.models.chat import ChatCodec
from hiplan.models.local import LocalModel
from hiplan.plan import Plan
from hiplan.prompts import Prompts
from hiplan.trace import Conversation, Episode, PlanRecord
from hiplan.training.batch import Row, batches


def plan_kl(model: LocalModel, episodes: Sequence[Episode], temperature: float = 1.0) -> float | None:
    """Mean over tokens of KL(own plan || swapped plan), in nats; ``None`` where no two episodes' plans can be swapped.

    ``episodes``: of different tasks, written by ``model``'s executor. Each is read up to its first revision.
    """
    own = first_plans(episodes)
    other = swapped(own, {e.task.id: e.task.env for e in episodes})
    spec, total, tokens = model.specs["executor"], 0.0, 0
    with torch.no_grad(), model.weights.acting_as("executor") as network:
        device = next(network.parameters()).device
        for episode in episodes:
            if episode.task.id not in other:
                continue
            plans = own[episode.task.id], other[episode.task.id]
            said = [Row.of(as_if_under(episode, plan, model.prompts, spec.codec)) for plan in plans]
            for mine, theirs in zip(*said, strict=True):
                if max(len(mine.ids), len(theirs.ids)) <= spec.window:
                    p, q = (_distributions(network, row, device, temperature) for row in (mine, theirs))
                    total += float((p.exp() * (p - q)).sum())
                    tokens += len(p)
    return total / tokens if tokens else None


def as_if_under(episode: Episode, plan: Plan, prompts: Prompts, codec: ChatCodec) -> Conversation:
    """The executor's conversation up to the first revision, had it read ``plan``: the same answers, token by token."""
    twin = Episode(episode.task, episode.observation, plans=[PlanRecord(0, plan)])
    conversation = twin.conversation("executor")
    conversation.ask(prompts.executor_system, 0, author="system")
    end = next((record.turn for record in episode.plans[1:] if not record.kept), len(episode.turns))
    answers = [s for s in episode.exchanges("executor")[0].segments if s.author == "assistant"]
    for turn, said in zip(episode.turns[:end], answers, strict=False):
        conversation.ask(prompts.act(twin), turn.index)
        before = conversation.segments[-2] if twin.turns else None
        asked = codec.prompt(conversation.pending(), before)
        conversation.answer(
            said.text, said.kind, turn.index, prompt_ids=asked, ids=said.ids, logprobs=said.logprobs,
            finish=said.finish, trained=said.trained, reasoning=said.reasoning, dropped=said.dropped,
        )  # fmt: skip
        twin.turns.append(turn)
    return conversation


def _distributions(network: torch.nn.Module, row: Row, device: torch.device, temperature: float) -> Tensor:
    """Log-probabilities (N, V) of the N trained tokens of the row."""
    (batch,) = batches([row], len(row.ids), device)
    logits = network(input_ids=batch.ids[:, :-1], attention_mask=batch.attention[:, :-1], use_cache=False).logits
    return torch.log_softmax(logits[batch.mask].float() / temperature, dim=-1)
