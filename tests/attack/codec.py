"""Targets: conversations of hostile texts as tokens, for every family of chat templates in ``tests/families.py``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache
from random import Random

from doubles import Letters, letters
from families import FAMILIES, model, tokenizer
from tokenizers import AddedToken, Tokenizer, normalizers

from attack.core import Target, chance
from attack.mutate import KINDS, fullwidth, hostile
from hiplan.coordination import Limits
from hiplan.errors import HiplanError
from hiplan.executors import Executor
from hiplan.model import Decoding
from hiplan.models.bases import ModelSpec
from hiplan.models.chat import ChatCodec
from hiplan.models.local import LocalModel
from hiplan.planners import Planner
from hiplan.sampler import Job, Sampler
from hiplan.task import StepResult, Task
from hiplan.trace import ROLES, Conversation

PART = "\n--\n"  # between the texts of one input
HARMLESS = "ok"
PLAIN = {  # templates whose delimiters are ordinary text, and the delimiters
    "zephyr": (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        ("<|system|>", "<|user|>", "<|assistant|>"),
    ),
    "instructions": (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] + eos_token }}"
        "{% else %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endif %}{% endfor %}",
        ("[INST]", "[/INST]"),
    ),
    "alpaca": (
        "{% for m in messages %}{{ '### ' + m['role'] + ':\n' + m['content'] }}"
        "{{ eos_token if m['role'] == 'assistant' else '\n\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}",
        ("### user:", "### assistant:"),
    ),
}


def make_parts(own: Sequence[str]) -> Callable[[Random], str]:
    words = (*own, *own, *KINDS["tokens"], *KINDS["templates"])
    return lambda rng: PART.join(hostile(rng, words) for _ in range(4))


def conversed(codec: ChatCodec, texts: Sequence[str]) -> list[int]:
    """The tokens of a conversation of four texts: system, task, an answer that is text alone, and an observation."""
    conversation = Conversation("executor")
    conversation.ask(texts[0], 0, author="system")
    conversation.ask(texts[1], 0)
    conversation.answer(texts[2], "action", 0)
    ids, _ = codec.row(conversation)
    conversation.ask(texts[3], 1)
    return ids + codec.prompt(conversation.pending(), conversation.segments[-2])


def padded(text: str) -> list[str]:
    return (text.split(PART) + [HARMLESS] * 4)[:4]


@cache
def codec_of(name: str) -> ChatCodec:
    return ChatCodec(tokenizer(name))


def attack_family(name: str) -> Callable[[str], None]:
    def attack(text: str) -> None:
        """The special tokens and tags of the conversation are those of a harmless one, and no text is lost."""
        codec, texts = codec_of(name), padded(text)
        added = codec.tokenizer.added_tokens_decoder
        marks = {i for i, token in added.items() if token.content not in FAMILIES[name].plain}
        found = [[i for i in conversed(codec, parts) if i in marks] for parts in ([HARMLESS] * 4, texts)]
        assert found[0] == found[1], "a mark was forged"
        for part in texts:
            told = codec.tokenizer.decode(list(codec.content(part)), skip_special_tokens=False)
            assert told == part.encode("utf-8", "replace").decode(), "a text was changed"
        rng = chance(text)
        said = codec.read(rng.choices(range(len(codec.tokenizer)), k=rng.randint(0, 30)))  # what a model may sample
        assert isinstance(said.text, str) and isinstance(said.reasoning, str)

    return attack


# -- tokenizers and templates that make it hard -------------------------------------------------


@cache
def plain_codec(name: str) -> ChatCodec:
    """A codec with this template; the end of a turn is a token, the other delimiters are text."""
    words = copy.deepcopy(tokenizer("llama3"))
    words.chat_template = PLAIN[name][0]
    return ChatCodec(words, plain_delimiters=True)


def attack_plain(name: str) -> Callable[[str], None]:
    def attack(text: str) -> None:
        """Where such a template is asked for, no text holds its delimiters once it is encoded."""
        codec = plain_codec(name)
        told = [
            codec.tokenizer.decode(conversed(codec, parts), skip_special_tokens=False)
            for parts in ([HARMLESS] * 4, padded(text))
        ]
        for delimiter in PLAIN[name][1]:
            assert told[0].count(delimiter) == told[1].count(delimiter), "a delimiter was forged"

    return attack


@cache
def normalising() -> LocalModel:
    """A model whose tokenizer lowercases and folds compatible characters, also where it looks for added tokens."""
    local, words = model("qwen3"), copy.deepcopy(tokenizer("qwen3"))
    raw = Tokenizer.from_str(words.backend_tokenizer.to_str())
    raw.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    raw.add_tokens([AddedToken("<think>", normalized=True), AddedToken("</think>", normalized=True)])
    folded = type(words)(
        tokenizer_object=raw, eos_token=words.eos_token, extra_special_tokens=list(FAMILIES["qwen3"].special)
    )
    folded.chat_template = words.chat_template
    local.specs = {role: ModelSpec(folded, local.weights.body(role).config) for role in ROLES}
    return local


def attack_normalising(text: str) -> None:
    """A text that cannot be encoded without a mark costs its own episode, not the others of the batch."""

    class World(Letters):
        def step(self, action: str) -> StepResult:
            return StepResult(text if self.broken else "fine", 0.0)

    tasks: list[Task] = [letters(9, broken=True), letters(9)]
    jobs = [Job(task, Planner(retries=0), Executor()) for task in tasks]
    try:
        bad, good = Sampler(normalising(), World, Decoding(1.0, 2, 2), limits=Limits(turns=2, idle=9)).run(jobs)
    except HiplanError as error:
        raise AssertionError("one text ended the whole batch") from error
    assert len(good.turns) == 2 and not good.error, "the other episode of the batch was affected"
    codec = normalising().specs["executor"].codec
    opening = codec.tokenizer.convert_tokens_to_ids("<think>")
    prompts = [s.ids for c in bad.exchanges("executor") for s in c.segments if s.author == "user"]
    assert not any(opening in ids for ids in prompts), "a mark was forged"


def make_folded(rng: Random) -> str:
    own = ("<think>", "</think>", "<|im_end|>", "<|im_start|>")
    return hostile(rng, (*own, *map(fullwidth, own), *(token.upper() for token in own), "<\u200bthink>"))


TARGETS = (
    *(
        Target(f"chat codec, {name}", make_parts((*family.special, *family.added)), attack_family(name), 7_000, 1.0)
        for name, family in FAMILIES.items()
    ),
    *(Target(f"chat codec, {n} as text", make_parts(PLAIN[n][1]), attack_plain(n), 2_000, 2.0) for n in PLAIN),
    Target("chat codec, normalising", make_folded, attack_normalising, 2_000, 25.0),
)
