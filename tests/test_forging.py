"""Tokenizers that change what they read, and templates whose delimiters are plain text: no text forges a turn there."""

import shutil
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from families import FAMILIES, MISTRAL, TEMPLATES, TEXT, tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hiplan.errors import ConfigError
from hiplan.models.bases import find_model
from hiplan.models.chat import ChatCodec
from hiplan.models.local import LocalModel
from hiplan.models.stages import load_stage, save_stage

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


def test_a_lone_surrogate_is_read_as_a_question_mark() -> None:
    codec = codec_of(changing(next(iter(NORMALIZERS)), True))
    assert codec.content("a\ud800b") == codec.content("a?b")


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
    assert codec_of(changing("NFKC", bytes_for_unknown)).content(text)
    assert time.perf_counter() - began < 10


# -- plain delimiters ---------------------------------------------------------------------------


ZEPHYR = (  # HuggingFaceH4/zephyr-7b-beta's turns, whose tags are no tokens of their own there
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
VICUNA = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ 'USER: ' + m.content + ' ASSISTANT:' }}"
    "{% elif m.role == 'system' %}{{ m.content + '\n\n' }}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}"
    "{% endfor %}"
)
PLAIN = {
    "zephyr": (ZEPHYR, ("<|assistant|>", "<|user|>", "<|system|>")),
    "mistral": (MISTRAL, ("[INST]", "[/INST]")),
    "vicuna": (VICUNA, ("ASSISTANT:",)),
}


@cache
def plain(template: str, normalizer: str | None = None) -> Any:
    """A tokenizer that has only the end of a turn as a token of its own."""
    raw = Tokenizer(models.BPE())
    if normalizer:
        raw.normalizer = NORMALIZERS[normalizer]
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    raw.train_from_iterator(
        [*TEXT, *PLAIN[template][1]] * 10,
        trainers.BpeTrainer(
            vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["</s>", "<s>"],
            show_progress=False,
        ),
    )  # fmt: skip
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    fast.chat_template = PLAIN[template][0]
    return fast


@pytest.mark.parametrize("template", PLAIN)
def test_plain_delimiters_are_refused_unless_they_are_asked_for(template: str) -> None:
    with pytest.raises(ConfigError, match=r"marks turns with the plain text .*any observation can hold.*plain_delim"):
        ChatCodec(plain(template))
    codec = ChatCodec(plain(template), plain_delimiters=True)
    words = plain(template)
    for text in ("make a door [oak] <b> user: 1", "", "\n", "<|assis", "INST]"):
        assert words.decode(list(codec.content(text))) == text, "nothing else is changed"


@pytest.mark.parametrize("name", FAMILIES)
def test_delimiters_with_tokens_of_their_own_are_taken(name: str) -> None:
    ChatCodec(tokenizer(name))


FORGED = [
    form(t) for _, words in PLAIN.values() for t in words for form in (str, wide, str.lower, lambda t: f"{t[0]}{t}")
]
FORGING = st.lists(st.sampled_from([*FORGED, "\u200b", "\n", " ", "</s>", "go"]) | st.text(max_size=3), max_size=8)


@pytest.mark.parametrize("normalizer", [None, *NORMALIZERS])
@pytest.mark.parametrize("template", PLAIN)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(text=FORGING.map("".join))
def test_no_text_holds_a_plain_delimiter(template: str, normalizer: str | None, text: str) -> None:
    words = plain(template, normalizer)
    codec = accepting(words)
    said = words.decode(list(codec.content(text)), skip_special_tokens=False)
    read = [words.decode(words.encode(word, add_special_tokens=False)) for word in PLAIN[template][1]]
    assert not any(word in said for word in (*PLAIN[template][1], *read))
    assert words.eos_token_id not in codec.content(text)


@cache
def accepting(words: Any) -> ChatCodec:
    return ChatCodec(words, plain_delimiters=True)


def test_what_is_broken_up_can_still_be_read() -> None:
    codec = accepting(plain("mistral"))
    assert codec.tokenizer.decode(list(codec.content("say [/INST] twice"))) == "say [ /INST] twice"
    assert codec.tokenizer.decode(list(codec.content("[[/INST]/INST]"))) == "[[ /INST]/INST]"


def test_a_stage_remembers_the_choice(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(find_model("tiny-v1"), tmp_path / "model"))
    (folder / "chat_template.jinja").write_text(ZEPHYR.replace("<|", "<<").replace("eos_token", "'<|end|>'"))
    with pytest.raises(ConfigError, match="plain text '<<"):
        LocalModel.load(str(folder))
    model = LocalModel.load(str(folder), plain_delimiters=True)
    save_stage(model, tmp_path / "stage", {})
    assert load_stage(tmp_path / "stage").specs["executor"].codec.plain_delimiters
