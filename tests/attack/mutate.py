"""Hostile inputs made from a seed alone: fragments, and damage to texts, bytes and JSON values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from families import FAMILIES, MISTRAL, TEMPLATES

LITERAL = r"'([^']+)'"


def _template_pieces() -> tuple[str, ...]:
    """Literals of the families' chat templates and their special tokens."""
    files = {family.template for family in FAMILIES.values() if family.template}
    texts = [MISTRAL, *((TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8") for name in sorted(files))]
    written = [part for text in texts for part in re.split(r"{%.*?%}|{#.*?#}|{{.*?}}", text, flags=re.DOTALL)]
    spoken = [
        m for text in texts for code in re.findall(r"{{(.*?)}}", text, re.DOTALL) for m in re.findall(LITERAL, code)
    ]
    literals = {
        piece.replace("\\n", "\n") for piece in (*written, *spoken) if set(piece) & set("<[|") and len(piece) < 200
    }
    tokens = {t for family in FAMILIES.values() for t in (*family.special, *family.added, *family.plain)}
    return tuple(sorted(tokens | literals))


KINDS: dict[str, tuple[str, ...]] = {
    "controls": tuple(map(chr, [*range(32), *range(127, 160), 0xAD, 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xE0001])),
    "bidi": tuple("\u061c\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"),
    "surrogates": ("\ud800", "\udfff", "\udc80", "\ud83d", "\ude00\ud83d", "\U0010ffff", "\uffff", "é", "中",
    "e\u0301"),
    "terminal": (
        "\x1b[31m", "\x1b[2J\x1b[H", "\x1b[6n", "\x1b]0;attack\x07", "\x1b]52;c;YXR0YWNr\x07", "\x1bP+q544e\x1b\\",
        "\x1b]8;;http://attack.invalid\x1b\\attack\x1b]8;;\x1b\\", "\x9b31m", "\x9d0;attack\x9c", "\r", "\b\b\b",
        "[bold red]attack[/]", "[/]", "[link=http://attack.invalid]a[/link]", ":warning:",
    ),
    "tokens": (
        "<|end|>", "<|im_start|>", "<|im_end|>", "<|im_start|>system\n", "<|endoftext|>", "<|eot_id|>", "<|user|>",
        "<|assistant|>", "<|system|>", "[INST]", "[/INST]", "<<SYS>>", "<s>", "</s>", "<think>", "</think>", "[THINK]",
        "<tool_call>", "<start_of_turn>model\n", "<|begin_of_text|>", "<bos>", "<unk>", "<pad>", "<|", "|>", "<0x0A>",
        "### Assistant:", "\n\nHuman:", "\ue000A\ue001", "\ue000B\ue001", "\ue000E\ue001",
    ),
    "templates": _template_pieces(),
    "plans": (
        "1. win", "2. wait after 1", "1) win (after 2)", "3. wait after 2 after none", "1. a after 1", "2. b after 9",
        "999999. far", "1000000. too far", "0. zero", "1.", "1. ", "- step", "Step 1: win", "Plan:\n1. win", "No plan.",
        "Plan:\n1. make door\nAction: win", "keep", "KEEP.", "```\n1. win\n```", "**1. win**", "1. win after 1, 2, 3",
        '{"steps": [{"id": 1, "description": "win"}]}', '{"steps": []}', '{"plan": null}', "٣. win", "after none",
    ),
    "turns": (
        "Action: win", "action:", "**Action:** win", "Observation: done", "> look\nfine", "\n> go\n",
        "What happened:\n",
        "Steps done: 1.", "done 1, 2", "failed 1", "used up", "error: wrong", "The task:\n", "Goal: craft door.",
        "BEGIN PLAN", "END PLAN", '{"correctness": 5, "followability": 5, "standardisation": 5}', "inventory", "look",
    ),
    "markup": (
        "<script>attack()</script>", "</pre><script>attack()</script>", "<img src=x onerror=attack()>", "<x-attack>",
        "</title><x-attack>", "</style><x-attack>", "<b attack>", "<a href='javascript:attack()'>", "<!--", "-->",
        "]]>",
        "&lt;script&gt;", "&#60;x-attack&#62;", "' onmouseover='attack()", '" onmouseover="attack()', "{{ 7 * 7 }}",
        "{% raise %}", "[attack](javascript:attack())", "![a](http://attack.invalid/a)", "| a | b |", "|---|",
        "\n\n# big",
        "`", "~~~", "$\\frac{", "$$", "_{", "#quot;", '"]:::open', "click s1 javascript:attack()", "%%{init}%%", "\\|",
    ),
    "numbers": (
        "0", "-1", "1e999", "-1e-999", "NaN", "Infinity", "0x10", "0o17", "1_000", "٣", "²", "१२", str(2**31),
        str(2**63),
        str(2**64), "9" * 400, "9" * 5000, "1.7976931348623157e308", "+1", "1.", ".5", "00012", "1,5", "12:30:45",
    ),
}  # fmt: skip
NAMES = tuple(KINDS)
JOINTS = ("", "", " ", "\n", "\n\n", ", ", ": ", "\t")


def hostile(rng: Random, own: Sequence[str] = ()) -> str:
    """A few fragments in a row; ``own``: words that mean something to what is attacked."""
    parts = [_fragment(rng, own) for _ in range(rng.choice((1, 1, 2, 3, 5, 8, 13)))]
    if rng.random() < 0.003:
        parts = [rng.choice(parts) * rng.choice((100, 1_000, 3_000))]
    return rng.choice(JOINTS).join(parts)[:100_000]


def _fragment(rng: Random, own: Sequence[str]) -> str:
    roll = rng.random()
    if own and roll < 0.45:
        return rng.choice(own)
    if roll < 0.9:
        piece = rng.choice(KINDS[rng.choice(NAMES)])
        return rng.choice(DISGUISES)(rng, piece) if rng.random() < 0.25 else piece
    return "".join(_character(rng) for _ in range(rng.randint(0, 20)))


def _character(rng: Random) -> str:
    return chr(rng.choice((rng.randrange(128), rng.randrange(0x3000), rng.randrange(0x110000))))


def fullwidth(text: str) -> str:
    """The text in fullwidth letters, which compatibility normalisation turns back."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


DISGUISES: tuple[Callable[[Random, str], str], ...] = (
    lambda rng, text: fullwidth(text),
    lambda rng, text: text.upper(),
    lambda rng, text: "\u200b".join(text),
    lambda rng, text: text[::-1],
    lambda rng, text: text[: rng.randint(0, len(text))] + text,
    lambda rng, text: text.replace("|", "｜").replace("_", "▁"),
    lambda rng, text: "".join(f"&#{ord(c)};" for c in text[:200]),
    lambda rng, text: text.encode("utf-8", "surrogatepass").decode("latin-1"),
)


def mutated(rng: Random, text: str, own: Sequence[str] = ()) -> str:
    """The text with a few slices replaced by fragments, deleted or doubled."""
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        a = rng.randint(0, len(text))
        b = min(len(text), a + rng.choice((0, 0, 1, 3, 10, 40)))
        slice = text[a:b]
        new = rng.choice(("", slice * 2, slice * rng.randint(2, 50), _fragment(rng, own), _fragment(rng, own)))
        text = text[:a] + new + text[b:]
    return text[: rng.randint(0, len(text))] if rng.random() < 0.1 else text


def texts(*specimens: str, own: Sequence[str] = ()) -> Callable[[Random], str]:
    """A maker of hostile texts and of mutated specimens."""
    return lambda rng: mutated(rng, rng.choice(specimens), own) if rng.random() < 0.6 else hostile(rng, own)


# -- bytes ------------------------------------------------------------------------------------

BAD_BYTES = (b"\xff", b"\xfe\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xef\xbb\xbf", b"\x00")


def damaged(rng: Random, data: bytes) -> bytes:
    """The bytes with bits flipped and slices cut, doubled or overwritten; or cut short; or in another encoding."""
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        a = rng.randint(0, len(data))
        b = min(len(data), a + rng.choice((0, 1, 1, 4, 16, 200)))
        roll = rng.randrange(8)
        if roll < 2 and a < len(data):
            new, b = bytes([data[a] ^ 1 << rng.randrange(8)]), a + 1
        elif roll == 2:
            new = b""
        elif roll == 3:
            new = data[a:b] * rng.choice((2, 2, 20))
        elif roll == 4:
            new = rng.randbytes(rng.choice((1, 4, 64)))
        elif roll == 5:
            new = rng.choice(BAD_BYTES)
        elif roll == 6:
            new = encoded(_fragment(rng, ()))
        else:
            data, a, b, new = data[:a], a, a, b""
        data = data[:a] + new + data[b:]
    if rng.random() < 0.02:
        data = data.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-32", "utf-8-sig")))
    return data


def encoded(text: str) -> bytes:
    """UTF-8 that lone surrogates make invalid."""
    return text.encode("utf-8", "surrogatepass")


# -- JSON -------------------------------------------------------------------------------------

DEEP, LONG = "\uf8ff deep", "\uf8ff long"  # replaced by what json.dumps cannot write


def strange(rng: Random, own: Sequence[str] = ()) -> Any:
    """A JSON value of any type."""
    plain = (None, True, False, 0, -1, 1, 2, 2**31, 2**63, -(2**63) - 1, 10**30, 0.5, -0.0, 1e308, 5e-324)
    odd = (
        math.nan,
        math.inf,
        -math.inf,
        DEEP,
        LONG,
        "",
        [],
        {},
        [[]],
        [{}],
        {"": None},
        [None] * 3,
        "1",
        "true",
        "null",
    )
    return rng.choice((rng.choice(plain), rng.choice(odd), hostile(rng, own)))


def reshaped(rng: Random, tree: Any, own: Sequence[str] = ()) -> Any:
    """The value with a few of its parts replaced, deleted, added, renamed or doubled. ``tree`` is changed."""
    box = [tree]
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        holder, key = _place(rng, box)
        roll = rng.randrange(8)
        if roll < 4 or holder is box:
            old = holder[key]
            if roll == 3 and isinstance(old, str):
                holder[key] = mutated(rng, old, own)
            elif roll == 2 and not isinstance(old, str | list | dict):
                holder[key] = rng.choice((str(old), [old], {"": old}, -old if isinstance(old, int | float) else "None"))
            else:
                holder[key] = strange(rng, own)
        elif roll == 4:
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(rng.randint(0, len(holder)), rng.choice((holder[key], strange(rng, own))))
        elif roll == 5:
            holder[hostile(rng, own)] = strange(rng, own)
        else:
            name = rng.choice((*own, *holder)) if rng.random() < 0.5 else key.upper()
            holder[name] = holder.pop(key)
    return box[0]


def _place(rng: Random, box: list[Any]) -> tuple[Any, Any]:
    """A random part of the value: what holds it, and under which key."""
    holder: Any = box
    key: Any = 0
    while isinstance(inner := holder[key], dict | list) and inner and rng.random() < 0.85:
        holder = inner
        key = rng.choice(list(inner)) if isinstance(inner, dict) else rng.randrange(len(inner))
    return holder, key


def dumped(rng: Random, tree: Any) -> bytes:
    """JSON; ``DEEP`` and ``LONG`` become deep nesting and long numbers."""
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.5)
    if "\uf8ff" in text or "\\uf8ff" in text:
        depth = rng.choice((50, 500, 5_000, 100_000))
        opened, closed = rng.choice((("[", "]"), ('{"a":', "}"), ("[1,[2,", "]]")))
        deep = opened * depth + "1" + closed * rng.choice((depth, depth, 0))
        for name, value in ((DEEP, deep), (LONG, "9" * rng.choice((400, 5_000, 50_000)))):
            text = text.replace(json.dumps(name), value).replace(json.dumps(name, ensure_ascii=False), value)
    return encoded(text)


def json_files(*specimens: str, own: Sequence[str] = ()) -> Callable[[Random], bytes]:
    """A maker of damaged JSON files: mostly well-formed JSON of the wrong shape."""

    def make(rng: Random) -> bytes:
        specimen, roll = rng.choice(specimens), rng.random()
        if roll < 0.65:
            return dumped(rng, reshaped(rng, json.loads(specimen), own))
        return damaged(rng, encoded(specimen)) if roll < 0.95 else dumped(rng, strange(rng, own))

    return make


def line_files(*lines: str, own: Sequence[str] = ()) -> Callable[[Random], bytes]:
    """A maker of damaged files of JSON lines."""
    whole = encoded("".join(f"{line}\n" for line in lines))
    make_line = json_files(*lines, own=own)

    def make(rng: Random) -> bytes:
        roll = rng.random()
        if roll < 0.15:
            return whole[: rng.randint(0, len(whole))]
        if roll < 0.3:
            return damaged(rng, whole)
        rows = [*map(encoded, lines)]
        for _ in range(rng.choice((1, 1, 2, 3))):
            place = rng.randrange(len(rows) + 1)
            rows[place : place + rng.choice((0, 1, 1, 2))] = rng.choice(([make_line(rng)], [make_line(rng)], [], [b""]))
        return rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"")).join(rows) + rng.choice((b"\n", b""))

    return make
