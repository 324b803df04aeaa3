"""From conversations to token ids without ever rendering a template twice.

The chat template is rendered once, with markers for contents, to learn its delimiters. A conversation's
tokens are then delimiters and contents, appended piece by piece: what a model sampled goes in exactly
as it came out, and contents are encoded so that no special token can come out of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

from hiplan.errors import ConfigError
from hiplan.text import printable
from hiplan.trace import Conversation, Segment

_MARKS = ("\ue000A\ue001", "\ue000B\ue001", "\ue000C\ue001", "\ue000D\ue001", "\ue000E\ue001")


_THOUGHTS = {"<think>": "</think>", "[THINK]": "[/THINK]"}
"""How families mark reasoning, where the marks are tokens of their own."""
_TAG = re.compile(r"<.+>|\[.+\]", re.DOTALL)
"""Added tokens that look like this are kept out of contents even where a tokenizer does not call them special."""


_LIKE_TAG = re.compile(r"<+/?[^<>\s]+>+|\[/?[^\[\]\s]+\]")


@dataclass(frozen=True)
class Answer:
    """What a role wrote: ``text`` to be read, the ``reasoning`` before it, and how many tokens that took."""

    text: str
    reasoning: str = ""
    thought: int = 0


class ChatCodec:
    """Encodes prompts for one tokenizer with a chat template.

    ``plain_delimiters``: also take a template that marks turns with plain text, which any observation can hold. Such
    text in contents is then broken up by a space (``[ /INST]``); without this the template is refused.

    Raises ``ConfigError`` where the template's delimiters cannot be derived.
    """

    def __init__(self, tokenizer: Any, plain_delimiters: bool = False) -> None:
        self.tokenizer, self.plain_delimiters = tokenizer, plain_delimiters
        backend = tokenizer.backend_tokenizer
        self._plain = type(backend).from_str(backend.to_str())
        self._plain.encode_special_tokens = True
        added: dict[int, Any] = tokenizer.added_tokens_decoder
        marks = {i: t.content for i, t in added.items() if t.special or _TAG.fullmatch(t.content)}  # else it is text
        self._opening = frozenset(i for i, token in marks.items() if token in _THOUGHTS)
        self._closing = frozenset(i for i, token in marks.items() if token in _THOUGHTS.values())
        self._derive(tokenizer, sorted((t.content for t in added.values()), key=len, reverse=True))
        delimiters = [
            *self._open_system,
            *self._system_to_user,
            *self._open_user,
            *self._to_assistant,
            *self._after_end,
        ]
        marks |= {i: added[i].content for i in (*delimiters, self.end_id) if i in added and added[i].content.strip()}
        self._mark_ids, self._longest = frozenset(marks), max(map(len, marks.values()))
        asked = set(self._to_assistant)
        self.thinks_first = bool(asked & self._opening) and not asked & self._closing  # the template opens the thought
        self.content = lru_cache(maxsize=65_536)(self._content)

    def _derive(self, tokenizer: Any, added: Sequence[str]) -> None:
        """Read the delimiters off renderings of marks.

        What stands between two marks is asked of the template once, and the same delimiter is appended at every turn: a
        template whose delimiters depend on the turn is refused.
        """
        a, b, c, d, e = _MARKS
        turns = [("user", a), ("assistant", b), ("user", c), ("assistant", d), ("user", e)]
        opened, first, second, third, fourth, last = self._between(turns, True)
        alone, asked = self._between([("user", a)], True)
        try:
            system, to_user, after = self._between([("system", a), ("user", b)], True)
        except ConfigError:  # no system turn: what it says stands before the task, as the family's own templates do
            system, to_user, after = opened, "\n\n", asked
        if (opened, first, second, asked) != (alone, third, fourth, last) or after != asked:
            raise ConfigError(
                "the chat template puts different delimiters around later turns, so they cannot be derived; use a "
                "template that treats all turns alike, such as TRL's get_training_chat_template gives"
            )
        if not asked.startswith(first) and not first.startswith(asked):
            raise ConfigError(
                f"the chat template asks for an answer with {asked[-40:]!r} but shows earlier answers after "
                f"{first[-40:]!r}; use a template in which both agree"
            )
        ends = [t for t in added if t.strip() and second.lstrip().startswith(t)]
        if not ends:
            raise ConfigError(
                f"the chat template ends an answer with {second[:20]!r}, which begins with no special token; expected "
                "one that a model can write to end its turn"
            )
        self.end_id = int(tokenizer.convert_tokens_to_ids(ends[0]))
        known = tokenizer.eos_token_id
        self.end_ids = frozenset([self.end_id] if known is None else [self.end_id, int(known)])
        self._open_system = self._delimiter(system)
        self._system_to_user = self._delimiter(to_user)
        self._open_user = self._delimiter(alone)
        self._to_assistant = self._delimiter(asked)
        self._after_end = self._delimiter(second.lstrip()[len(ends[0]) :])
        if not asked.strip():
            raise ConfigError("the chat template puts nothing between a task and its answer; use one that marks turns")
        words = _plain_words(added, asked, system, to_user, alone, second)
        if words and not self.plain_delimiters:
            raise ConfigError(
                f"the chat template marks turns with the plain text {words[0]!r}, which any observation can hold; "
                "use a template whose marks are special tokens, or set plain_delimiters to break such text up"
            )
        words += [said for word in words if (said := self._said(self._delimiter(word)).strip())]  # as it is read
        self._words = re.compile("|".join(map(re.escape, dict.fromkeys(words)))) if words else None

    def _between(self, turns: list[tuple[str, str]], ask: bool) -> list[str]:
        """What the template writes before, between and after contents. Raises ``ConfigError`` where it loses one."""
        messages = [{"role": role, "content": content} for role, content in turns]
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
        except Exception as error:
            raise ConfigError(
                f"the tokenizer's chat template failed on a plain conversation ({error}); "
                "expected a template that takes user and assistant turns"
            ) from None
        parts = []
        for _, content in turns:
            before, found, text = text.partition(content)
            if not found:
                raise ConfigError("the chat template loses or reorders turns, so its delimiters cannot be derived")
            parts.append(before)
        return [*parts, text]

    def _delimiter(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def prompt(self, pending: Sequence[Segment], before: Segment | None) -> list[int]:
        """Tokens of the pending prompts up to where the role starts to write.

        ``before`` is the sampled segment they follow; an end of turn is added when it was cut.
        """
        ids: list[int] = []
        if before is not None:
            if not before.ids or before.ids[-1] != self.end_id:
                ids.append(self.end_id)
            ids += self._after_end
        for i, segment in enumerate(pending):
            if segment.author == "system":
                ids += self._open_system
            elif before is None:
                ids += self._system_to_user if i else self._open_user
            ids += self.content(segment.text)
        return ids + self._to_assistant

    def row(self, conversation: Conversation) -> tuple[list[int], list[bool]]:
        """All tokens up to the role's last answer, and for each whether it is the role's own and may be learned from.

        Tokens recorded at sampling stay as they are; what is text alone is encoded as a local model would have had it.
        """
        ids: list[int] = []
        own: list[bool] = []
        pending: list[Segment] = []
        before: Segment | None = None
        for segment in conversation.segments:
            if segment.author != "assistant":
                pending.append(segment)
                continue
            prompt = [token for one in pending for token in one.ids] or self.prompt(pending, before)
            cut = segment.finish in ("length", "window")
            answer = segment.ids or (*self.content(segment.text), *(() if cut else (self.end_id,)))
            ids += [*prompt, *answer]
            own += [False] * len(prompt) + [segment.trained] * len(answer)
            pending, before = [], replace(segment, ids=answer)
        return ids, own

    def _content(self, text: str) -> tuple[int, ...]:
        """Tokens of untrusted text, from which neither a special token nor a plain delimiter can be read."""
        ids = self._without_marks(printable(text))
        if self._words is None:
            return ids
        for change in (_spaced, _marred, _marred):  # a tokenizer may drop the space; what is left may hold another
            said = self._said(ids)
            if not self._words.search(said):
                return ids
            ids = self._without_marks(self._words.sub(change, said))
        return self._without_marks("?") if self._words.search(self._said(ids)) else ids

    def _said(self, ids: Sequence[int]) -> str:
        """What a model reads in these tokens."""
        return str(self._plain.decode(list(ids), skip_special_tokens=False))

    def _without_marks(self, text: str) -> tuple[int, ...]:
        """Tokens of a text: never a special token, a tag or one of the template's, whatever the text says.

        Text that would become one is cut after its first character and encoded in parts. A single character that would
        (one that a normalising tokenizer turns into a tag, or does not know) becomes a question mark, or nothing.
        """
        ids: list[int] = []
        pieces = [text]
        while pieces:
            piece = pieces.pop()
            found = self._plain.encode(piece, add_special_tokens=False)
            if self._mark_ids.isdisjoint(found.ids):
                ids += found.ids
            elif len(piece) == 1:
                pieces += ["?"] * (piece != "?")
            else:
                spans = [span for token, span in zip(found.ids, found.offsets, strict=True) if token in self._mark_ids]
                inside = {start + 1 for start, _ in spans}
                inside |= {(start + end) // 2 for start, end in spans if end - start > self._longest}  # unknown words
                cuts = sorted({0, len(piece), *(min(max(cut, 1), len(piece) - 1) for cut in inside)})
                pieces += [piece[start:end] for start, end in pairwise(cuts)][::-1]
        return tuple(ids)

    def read(self, ids: Sequence[int]) -> Answer:
        """Sampled tokens as text; what a thinking model wrote up to its last closing mark is reasoning.

        Special tokens and tags, the end token among them, are no text. A thought that was never closed is all
        reasoning, also where the template opened it.
        """
        marks = [i for i, token in enumerate(ids) if token in self._closing]
        if marks:
            cut = marks[-1] + 1
            return Answer(self._text(ids[cut:]).lstrip("\n"), self._text(ids[:cut]).strip(), cut)
        if ids and (self.thinks_first or ids[0] in self._opening):
            return Answer("", self._text(ids).strip(), len(ids) - (ids[-1] in self.end_ids))
        return Answer(self._text(ids))

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode([i for i in ids if i not in self._mark_ids], skip_special_tokens=True))


def _spaced(found: re.Match[str]) -> str:
    return f"{found[0][0]} {found[0][1:]}"


def _marred(found: re.Match[str]) -> str:
    return f"?{found[0][1:]}"


def _plain_words(added: Sequence[str], asked: str, *others: str) -> list[str]:
    """What of a template's delimiters any text can hold; ``asked``: the one that makes what follows an answer.

    A delimiter with an added token in it cannot come out of text, but what looks like a tag in it is taken for one.
    """
    tokens = "|".join(re.escape(token) for token in added if token.strip())
    words = [] if re.search(tokens, asked) else [asked.strip()]
    for text in (asked, *others):
        parts = re.split(tokens, text)
        words += [text.strip()] if len(parts) == 1 and text.strip() else []
        words += [word for part in parts for word in _LIKE_TAG.findall(part)]
    return list(dict.fromkeys(words))
