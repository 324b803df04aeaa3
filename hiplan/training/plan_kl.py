"""A cheap proxy of plan reliance: how much the executor's output depends on the plan in its prompt.

On recorded states, the KL divergence between the executor's next-token distributions under its own plan and under
another task's plan, averaged over the tokens of its answers. A value near 0 means that the executor ignores the plan.
Unlike success under swapped plans (``hiplan.evaluation.reliance``) it needs no further episodes, but it does not show
whether following the plan helps.
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
    """Mean over tokens of KL(own plan || swapped plan), in nats; ``None`` if no plans can be swapped.

    ``episodes``: of different tasks, sampled from ``model``'s executor. Each counts up to its first revision.
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
            pairs = [Row.of(with_plan(episode, plan, model.prompts, spec.codec)) for plan in plans]
            for mine, theirs in zip(*pairs, strict=True):
                if max(len(mine.ids), len(theirs.ids)) <= spec.window:
                    p, q = (_distributions(network, row, device, temperature) for row in (mine, theirs))
                    total += float((p.exp() * (p - q)).sum())
                    tokens += len(p)
    return total / tokens if tokens else None


def with_plan(episode: Episode, plan: Plan, prompts: Prompts, codec: ChatCodec) -> Conversation:
    """The executor's conversation up to the first revision with ``plan`` in its prompt, and the same answer tokens."""
    changed = Episode(episode.task, episode.observation, plans=[PlanRecord(0, plan)])
    conversation = changed.conversation("executor")
    conversation.ask(prompts.executor_system, 0, author="system")
    end = next((record.turn for record in episode.plans[1:] if not record.kept), len(episode.turns))
    answers = [s for s in episode.exchanges("executor")[0].segments if s.author == "assistant"]
    for turn, answer in zip(episode.turns[:end], answers, strict=False):
        conversation.ask(prompts.act(changed), turn.index)
        before = conversation.segments[-2] if changed.turns else None
        prompt_ids = codec.prompt(conversation.pending(), before)
        conversation.answer(
            answer.text, answer.kind, turn.index, prompt_ids=prompt_ids, ids=answer.ids, logprobs=answer.logprobs,
            finish=answer.finish, trained=answer.trained, reasoning=answer.reasoning, dropped=answer.dropped,
        )  # fmt: skip
        changed.turns.append(turn)
    return conversation


def _distributions(network: torch.nn.Module, row: Row, device: torch.device, temperature: float) -> Tensor:
    """Log-probabilities (N, V) over the vocabulary at the N trained tokens of the row."""
    (batch,) = batches([row], len(row.ids), device)
    logits = network(input_ids=batch.ids[:, :-1], attention_mask=batch.attention[:, :-1], use_cache=False).logits
    return torch.log_softmax(logits[batch.mask].float() / temperature, dim=-1)
