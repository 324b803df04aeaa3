"""From episodes to tensors: one row per role and episode, padded, with what the loss needs.

Dimensions: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hiplan.trace import Conversation, Episode, Role


@dataclass(frozen=True)
class Row:
    """One conversation as a training row; all four lists have one entry per token.

    ``trained``: whether the token was sampled by the role and carries loss. ``logprobs``: as recorded at sampling.
    """

    ids: list[int]
    trained: list[bool]
    logprobs: list[float]
    advantage: float

    @staticmethod
    def of(conversation: Conversation, advantage: float) -> list[Row]:
        """The conversation's tokens as they were; nothing is encoded again. None after the last trained one.

        One row, and one more after each answer whose reasoning later turns did not see.
        """
        rows: list[Row] = []
        ids: list[int] = []
        trained: list[bool] = []
        logprobs: list[float] = []
        for segment in conversation.segments:
            own = segment.author == "assistant"
            ids = [*ids, *segment.ids]
            trained = [*trained, *[own and segment.trained] * len(segment.ids)]
            logprobs = [*logprobs, *(segment.logprobs if own else [0.0] * len(segment.ids))]
            if segment.dropped:
                rows.append(Row(ids, trained, logprobs, advantage))
                kept = len(ids) - len(segment.ids)
                ids = [*ids[:kept], *segment.ids[segment.dropped :]]
                trained, logprobs = [False] * len(ids), [0.0] * len(ids)  # what this row learns from, it has learned
        if any(trained):
            end = len(trained) - trained[::-1].index(True)
            rows.append(Row(ids[:end], trained[:end], logprobs[:end], advantage))
        return rows


def rows_of(episodes: Iterable[Episode], role: Role, advantage: float) -> list[Row]:
    """The rows of all conversations with the role."""
    return [row for e in episodes for conversation in e.exchanges(role) for row in Row.of(conversation, advantage)]


@dataclass(frozen=True)
class Batch:
    """``ids`` (B, T) and, for each token but the first, (B, T - 1): mask, recorded log-probability, advantage."""

    ids: Tensor
    attention: Tensor
    mask: Tensor
    logp_old: Tensor
    advantage: Tensor


def batches(rows: Sequence[Row], most_tokens: int, device: torch.device, pad: int = 0) -> Iterator[Batch]:
    """Rows of similar length together, at most ``most_tokens`` padded tokens (or one row) in each."""
    group: list[Row] = []
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if group and (len(group) + 1) * len(row.ids) > most_tokens:
            yield _pad(group, device, pad)
            group = []
        group.append(row)
    if group:
        yield _pad(group, device, pad)


def _pad(rows: list[Row], device: torch.device, pad: int) -> Batch:
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad)
    attention = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    logp = torch.zeros(len(rows), width)
    for i, row in enumerate(rows):
        n = len(row.ids)
        ids[i, :n] = torch.tensor(row.ids)
        attention[i, :n] = 1
        mask[i, :n] = torch.tensor(row.trained)
        logp[i, :n] = torch.tensor(row.logprobs)
    advantage = torch.tensor([row.advantage for row in rows])[:, None].expand(-1, width - 1)
    return Batch(*(x.to(device) for x in (ids, attention, mask[:, 1:], logp[:, 1:], advantage)))


def token_logprobs(model: torch.nn.Module, batch: Batch, temperature: float = 1.0) -> Tensor:
    """Log-probability of each token but the first given those before it, (B, T - 1)."""
    logits = model(input_ids=batch.ids[:, :-1], attention_mask=batch.attention[:, :-1], use_cache=False).logits
    logp = torch.log_softmax(logits.float() / temperature, dim=-1)
    return logp.gather(-1, batch.ids[:, 1:, None])[..., 0]
