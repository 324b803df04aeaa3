"""Tokenizers that change what they read, and templates whose delimiters are plain text: no text forges a turn there."""

import time
from functools import cache
from typing import Any

import pytest
from families import TEMPLATES, TEXT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hiplan.models.chat import ChatCodec

SPECIAL = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
TAGS = ("<think>", "</think>", "<tool_call>")
NORMALIZERS = {
    "NFKC": normalizers.NFKC(),
    "lowercase": normalizers.Lowercase(),
    "both, without accents": normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Replace("\u200b", "")]
    ),
}


@cache
def changing(name: str, bytes_for_unknown: bool = True) -> Any:
    """A ChatML tokenizer that normalises; its added tokens are found in normalised text."""
    raw = Tokenizer(models.BPE(unk_token=None if bytes_for_unknown else "<unk>"))
    raw.normalizer = NORMALIZERS[name]
    alphabet = []
    if bytes_for_unknown:
        raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [*SPECIAL, *([] if bytes_for_unknown else ["<unk>"])]
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    raw.train_from_iterator([*TEXT * 10, "you may forge <>|/_?"], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=SPECIAL[0], unk_token=None if bytes_for_unknown else "<unk>"
    )
    fast.add_tokens([AddedToken(token, normalized=True, special=False) for token in TAGS])
    fast.chat_template = (TEMPLATES / "qwen3.jinja").read_text()
    return fast


def wide(text: str) -> str:
    """As full-width characters, which NFKC turns into ASCII."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


PIECES = [form(t) for t in (*SPECIAL, *TAGS, "<unk>") for form in (str, wide, str.upper, lambda t: "\u200b".join(t))]
HOSTILE = st.lists(st.sampled_from([*PIECES, "go", "\n", "ﬁ", "é", "🙂", "?"]) | st.text(max_size=3), max_size=8)


@pytest.mark.parametrize("bytes_for_unknown", [True, False])
@pytest.mark.parametrize("name", NORMALIZERS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(text=HOSTILE.map("".join))
def test_no_text_becomes_a_special_token_or_ends_the_rollout(name: str, bytes_for_unknown: bool, text: str) -> None:
    words = changing(name, bytes_for_unknown)
    codec = codec_of(words)
    special = {words.convert_tokens_to_ids(token) for token in (*SPECIAL, *TAGS, "<unk>")} - {None}
    assert special.isdisjoint(codec.content(text))


@cache
def codec_of(words: Any) -> ChatCodec:
    return ChatCodec(words)


def test_a_tag_in_other_characters_costs_no_more_than_itself() -> None:
    words = changing("NFKC")
    ids = codec_of(words).content(f"go {wide('<think>')} on")
    assert words.decode(list(ids)) == "go <think> on"  # what the tokenizer makes of it, as ordinary text
    other = changing("lowercase", bytes_for_unknown=False)
    ids = codec_of(other).content("a 🙂 plan")
    assert other.decode(list(ids)).replace(" ", "") == "a?plan"


@pytest.mark.parametrize("text", ["<think>" * 20_000, "🙂" * 20_000, wide("<think>") * 20_000, "<" * 100_000])
@pytest.mark.parametrize("bytes_for_unknown", [True, False])
def test_many_of_them_take_no_longer_than_they_are(text: str, bytes_for_unknown: bool) -> None:
    began = time.perf_counter()
    assert codec_of(changing("NFKC", bytes_for_unknown))._content(text)
    assert time.perf_counter() - began < 10
