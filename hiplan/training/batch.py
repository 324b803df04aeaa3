"""Convert episodes to padded tensors: usually one row per role and episode, with masks, log-probabilities, advantages.

Dimensions: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat

import torch
from torch import Tensor

from hiplan.models.chat import ChatCodec
from hiplan.prompts import Prompts
from hiplan.trace import Conversation, Episode, Role, Segment


@dataclass(frozen=True)
class Row:
    """One conversation as a training row; the four lists have one entry per token.

    ``trained``: whether the role sampled the token and the token carries loss. ``logprobs``: in nats, as recorded at
    sampling. ``advantages``: the advantage of the token's decision. ``last``: the tokens of the observation after the
    last action, to bootstrap the value of a truncated episode; they are not in the lists.
    """

    ids: list[int]
    trained: list[bool]
    logprobs: list[float]
    advantages: list[float]
    last: tuple[int, ...] = ()

    @staticmethod
    def of(conversation: Conversation, advantages: Iterable[float] | None = None) -> list[Row]:
        """The rows of a conversation, from its recorded token ids up to the last trained token.

        There is one row, plus one for each answer whose reasoning later turns did not see. ``advantages``: one per
        answer; default: zeros.
        """
        given = iter(advantages) if advantages is not None else repeat(0.0)
        rows: list[Row] = []
        ids: list[int] = []
        trained: list[bool] = []
        logprobs: list[float] = []
        credit: list[float] = []
        for segment in conversation.segments:
            own, n = segment.author == "assistant", len(segment.ids)
            ids = [*ids, *segment.ids]
            trained = [*trained, *[own and segment.trained] * n]
            logprobs = [*logprobs, *(segment.logprobs if own else [0.0] * n)]
            credit = [*credit, *[next(given) if own else 0.0] * n]
            if segment.dropped:
                rows.append(Row(ids, trained, logprobs, credit))
                ids = [*ids[: len(ids) - n], *segment.ids[segment.dropped :]]
                trained = [False] * len(ids)  # the row before has the loss of these tokens
                logprobs, credit = [0.0] * len(ids), [0.0] * len(ids)
        if any(trained):
            end = len(trained) - trained[::-1].index(True)
            rows.append(Row(ids[:end], trained[:end], logprobs[:end], credit[:end]))
        return rows

    @property
    def informative(self) -> bool:
        """Whether any token has a nonzero advantage."""
        return any(abs(a) > 1e-9 for a in self.advantages)


def rows_of(
    episode: Episode, role: Role, advantages: Iterable[float] | None = None, last: Sequence[int] = ()
) -> list[Row]:
    """The rows of all conversations with the role. ``advantages``: one per answer. ``last``: see ``Row``."""
    given = iter(advantages) if advantages is not None else None
    rows = [row for conversation in episode.exchanges(role) for row in Row.of(conversation, given)]
    return [*rows[:-1], replace(rows[-1], last=tuple(last))] if rows and last else rows


def last_observation(episode: Episode, prompts: Prompts, codec: ChatCodec) -> list[int]:
    """The tokens of the executor's prompt after the last action; empty if it did not act."""
    conversation = episode.conversations.get("executor")
    if not conversation or not conversation.segments or conversation.segments[-1].author != "assistant":
        return []
    asked = Segment("user", prompts.act(episode), "prompt", len(episode.turns))
    return codec.prompt([asked], conversation.segments[-1])


@dataclass(frozen=True)
class Batch:
    """Padded rows: ``ids`` and ``attention`` (B, T); ``mask``, ``logp_old`` and ``advantage`` (B, T - 1).

    The latter three have an entry for each token but the first.
    """

    ids: Tensor
    attention: Tensor
    mask: Tensor
    logp_old: Tensor
    advantage: Tensor


def batches(rows: Sequence[Row], most_tokens: int, device: torch.device, pad: int = 0) -> Iterator[Batch]:
    """Batches of rows with similar lengths, each with at most ``most_tokens`` padded tokens or a single row."""
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
    advantage = torch.zeros(len(rows), width)
    for i, row in enumerate(rows):
        n = len(row.ids)
        ids[i, :n] = torch.tensor(row.ids)
        attention[i, :n] = 1
        mask[i, :n] = torch.tensor(row.trained)
        logp[i, :n] = torch.tensor(row.logprobs)
        advantage[i, :n] = torch.tensor(row.advantages)
    return Batch(*(x.to(device) for x in (ids, attention, mask[:, 1:], logp[:, 1:], advantage[:, 1:])))


def token_logprobs(model: torch.nn.Module, batch: Batch, temperature: float = 1.0) -> Tensor:
    """Log-probability in nats of each token but the first, given the tokens before it, (B, T - 1)."""
    logits = model(input_ids=batch.ids[:, :-1], attention_mask=batch.attention[:, :-1], use_cache=False).logits
    logp = torch.log_softmax(logits.float() / temperature, dim=-1)
    return logp.gather(-1, batch.ids[:, 1:, None])[..., 0]
