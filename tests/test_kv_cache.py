"""The key-value cache: exact across turns and batches, freed with its conversation, emptied when weights change."""

import gc
import weakref

import numpy as np
import pytest
import torch
from doubles import random_model
from talks import CPU, TOLERANCE, logits, rescored, say, talk, tokens, write

from hiplan.model import Request
from hiplan.models.cache import KVStore
from hiplan.trace import ROLES, Conversation, Role
from hiplan.training.batch import Row


@pytest.mark.parametrize("role", ROLES)
def test_the_kept_cache_changes_nothing(role: Role) -> None:
    model = random_model(adapters=0.1)
    warm, cold = talk(model, role), talk(model, role, cold=True)
    assert [c.ids for c in warm] == [c.ids for c in cold]
    for a, b in zip(warm, cold, strict=True):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=TOLERANCE)


def test_the_kept_cache_processes_every_token_once() -> None:
    model = random_model()
    talk(model, "planner")
    assert model.usage.processed == model.usage.needed
    talk(model, "planner", cold=True)
    assert model.usage.processed > model.usage.needed


def test_conversations_that_join_and_leave_a_batch_keep_their_own_cache() -> None:
    """Large and small batches in changing order, whose rows end at different steps, against one answer at a time."""
    model, everybody = random_model(adapters=0.1), range(14)
    conversations, alone = ([Conversation("executor") for _ in everybody] for _ in range(2))
    for step, members in enumerate([everybody, everybody[::-3], everybody[::-1], (9, 2), everybody[1:12], everybody]):
        requests = []
        for i in members:
            conversations[i].ask(f"step {step}" * (1 + i % 4), step)
            requests.append(Request(conversations[i], tokens(1 + (5 * i + 3 * step) % 11), 100 * step + i))
        for i, request, c in zip(members, requests, model.complete(requests), strict=True):
            conversations[i].answer(c.text, "action", step, prompt_ids=c.prompt_ids, ids=c.ids, logprobs=c.logprobs)
            text = request.conversation.segments[-2].text
            cold = say(model, alone[i], text, request.seed, request.decoding, cold=True)
            assert (c.ids, c.prompt_ids, c.finish) == (cold.ids, cold.prompt_ids, cold.finish)
            np.testing.assert_allclose(c.logprobs, cold.logprobs, atol=TOLERANCE)


def test_conversations_are_freed_with_their_last_reference() -> None:
    model = random_model()
    kept = Conversation("executor")
    say(model, kept, "stay", 0, tokens(2))
    for _ in range(3):
        gone = [Conversation("executor") for _ in range(4)]
        for one in gone:
            one.ask("hello", 0)
        model.complete([Request(one, tokens(2)) for one in gone])
        seen = [weakref.ref(one) for one in gone]
        del gone, one
        gc.collect()
        assert [one() for one in seen] == [None] * 4
    say(model, kept, "again", 1, tokens(2))


def test_slots_of_freed_conversations_are_used_again() -> None:
    store = KVStore(1, 2, 8, torch.float32, CPU)
    kept = Conversation("executor")
    assert store.slot(kept).index == 0
    for _ in range(3):
        gone = [Conversation("executor") for _ in range(4)]
        slots = [store.slot(one) for one in gone]
        assert [slot.index for slot in slots] == [1, 2, 3, 4]
        store.give_back(slots, store.borrow(slots, 10), 0, 10)
        del gone
    (mine,) = store.borrow([store.slot(kept)], 10).keys
    assert mine.untyped_storage().nbytes() == 5 * mine[0].numel() * mine.element_size(), "room for five, not for 13"


@pytest.mark.parametrize("how", ["load", "AdamW", "SGD", "AdamW fused", "SGD fused"])
def test_after_a_change_of_weights_neither_cache_nor_merged_copy_is_reused(how: str) -> None:
    model = random_model(adapters=0.1)
    conversation, decoding = Conversation("executor"), tokens(8)
    say(model, conversation, "first", 0, decoding)
    before, planner = model.weights.version("executor"), model.weights.version("planner")
    old = logits(model.weights.merged("executor"), conversation.ids())
    write(model, how)
    assert model.weights.version("executor") != before
    assert (model.weights.version("planner") != planner) == (how == "load")
    assert not torch.allclose(logits(model.weights.merged("executor"), conversation.ids()), old, atol=0.01)
    copy = Conversation("executor", list(conversation.segments))
    warm = say(model, conversation, "second", 1, decoding)
    cold = say(model, copy, "second", 1, decoding, cold=True)
    assert warm.ids == cold.ids
    np.testing.assert_allclose(warm.logprobs, cold.logprobs, atol=TOLERANCE)
    (row,) = Row.of(conversation)
    first = len(conversation.segments[0].ids) + len(conversation.segments[1].ids)
    row.trained[:first] = [False] * first  # those were sampled by the old weights
    assert rescored(model, "executor", [row]) < TOLERANCE
