"""A KV cache for many conversations of different lengths that is kept across turns.

Each conversation has a slot. Tokens are written at the slot's own length, so nothing is
processed twice, whatever batch a conversation is answered in. Shapes: S slots, H key-value heads, L
capacity in tokens, D head size, B rows of a batch, T new tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from hiplan.trace import Conversation


class BatchCache(Cache):
    """The slots of one batch as transformers' cache: writes T tokens per row at ``positions`` (B, T)."""

    def __init__(self, keys: list[Tensor], values: list[Tensor]) -> None:
        super().__init__(layers=[])
        self.keys, self.values = keys, values  # per layer, (B, H, L, D)
        self.positions = torch.zeros(0, 0, dtype=torch.long)
        self.seen = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new states, (B, H, T, D), and return all that is seen so far, (B, H, seen, D)."""
        rows = torch.arange(len(key_states), device=key_states.device)[:, None]
        self.keys[layer_idx][rows, :, self.positions] = key_states.transpose(1, 2)
        self.values[layer_idx][rows, :, self.positions] = value_states.transpose(1, 2)
        return self.keys[layer_idx][:, :, : self.seen], self.values[layer_idx][:, :, : self.seen]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen


@dataclass
class Slot:
    """Where a conversation's states lie and how many of its tokens have been processed."""

    index: int
    length: int = 0


class KVStore:
    """Slots for conversations; a slot is freed when its conversation is no longer referenced."""

    def __init__(self, layers: int, heads: int, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self._shape, self._dtype, self._device = (heads, size), dtype, device
        self._slots: WeakKeyDictionary[Conversation, Slot] = WeakKeyDictionary()
        self._keys: list[Tensor] = [self._empty(0, 0) for _ in range(layers)]
        self._values: list[Tensor] = [self._empty(0, 0) for _ in range(layers)]
        self._scratch = [[self._empty(0, 0)], [self._empty(0, 0)]]

    def _empty(self, slots: int, length: int) -> Tensor:
        heads, size = self._shape
        return torch.zeros(slots, heads, length, size, dtype=self._dtype, device=self._device)

    def slot(self, conversation: Conversation) -> Slot:
        """The conversation's slot, made on first use."""
        found = self._slots.get(conversation)
        if found is None:
            used = {slot.index for slot in self._slots.values()}
            found = Slot(next(i for i in range(len(used) + 1) if i not in used))
            self._slots[conversation] = found
        return found

    def borrow(self, slots: list[Slot], room: int) -> BatchCache:
        """The slots as one cache with ``room`` tokens of capacity each; hand it back with ``give_back``."""
        self._grow(max(slot.index for slot in slots) + 1, room)
        if self._in_place(slots):
            return BatchCache([k[: len(slots)] for k in self._keys], [v[: len(slots)] for v in self._values])
        rows = torch.tensor([slot.index for slot in slots], device=self._device)
        self._fit_scratch()
        cache = BatchCache(
            [k[: len(slots), :, :room] for k in self._scratch[0]], [v[: len(slots), :, :room] for v in self._scratch[1]]
        )
        for mine, theirs in [*zip(self._keys, cache.keys, strict=True), *zip(self._values, cache.values, strict=True)]:
            torch.index_select(mine[:, :, :room], 0, rows, out=theirs)
        return cache

    def give_back(self, slots: list[Slot], cache: BatchCache, start: int, end: int) -> None:
        """Keep what was written between token positions ``start`` and ``end``."""
        if self._in_place(slots):
            return
        rows = torch.tensor([slot.index for slot in slots], device=self._device)
        for mine, theirs in [*zip(self._keys, cache.keys, strict=True), *zip(self._values, cache.values, strict=True)]:
            mine[:, :, start:end].index_copy_(0, rows, theirs[:, :, start:end])

    @staticmethod
    def _in_place(slots: list[Slot]) -> bool:
        return all(slot.index == i for i, slot in enumerate(slots))

    def _fit_scratch(self) -> None:
        """Buffers for gathered slots, kept: fresh memory for every call would cost more than the copy."""
        if self._scratch[0][0].shape != self._keys[0].shape:
            self._scratch = [[torch.empty_like(t) for t in tensors] for tensors in (self._keys, self._values)]

    def _grow(self, slots: int, length: int) -> None:
        have_slots, _, have_length, _ = self._keys[0].shape
        if slots <= have_slots and length <= have_length:
            return
        slots = slots if have_slots == 0 else have_slots if slots <= have_slots else max(slots, have_slots * 5 // 4)
        length = max(have_length, -(-length // 256) * 256)
        for tensors in (self._keys, self._values):
            for i, old in enumerate(tensors):
                new = self._empty(slots, length)
                new[:have_slots, :, :have_length] = old
                tensors[i] = new
