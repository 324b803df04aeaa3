"""From conversations to token ids without ever rendering a template twice.

The chat template is rendered once, with markers for contents, to learn its delimiters. A conversation's
tokens are then delimiters and contents, appended piece by piece: what a model sampled goes in exactly
as it came out, and contents are encoded so that no added token can come out of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from hiplan.errors import ConfigError
from hiplan.trace import Conversation, Segment

_MARKS = ("\ue000A\ue001", "\ue000B\ue001", "\ue000C\ue001", "\ue000D\ue001", "\ue000E\ue001")


class ChatCodec:
    """Encodes prompts for one tokenizer with a chat template.

    Raises ``ConfigError`` where the template's delimiters cannot be derived.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._derive(tokenizer)
        backend = tokenizer.backend_tokenizer
        self._plain = type(backend).from_str(backend.to_str())
        self._plain.encode_special_tokens = True
        self._added = sorted((t.content for t in tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
        self._added_ids = frozenset(tokenizer.added_tokens_decoder)
        self.content = lru_cache(maxsize=65_536)(self._content)

    def _derive(self, tokenizer: Any) -> None:
        a, b, c, d, e = _MARKS
        roles = ("system", "user", "assistant", "user", "assistant")
        messages = [{"role": role, "content": mark} for role, mark in zip(roles, _MARKS, strict=True)]
        try:
            text = tokenizer.apply_chat_template(messages[:4], tokenize=False, add_generation_prompt=True)
            longer = tokenizer.apply_chat_template(messages, tokenize=False)
        except Exception as error:
            raise ConfigError(
                f"the tokenizer's chat template failed on a plain conversation ({error}); "
                "expected a template that takes system, user and assistant turns"
            ) from None
        positions = [text.find(mark) for mark in (a, b, c, d)]
        if -1 in positions or positions != sorted(positions) or not longer.startswith(text) or e not in longer:
            raise ConfigError(
                "the chat template is not append-only (an earlier turn renders differently later), so its delimiters "
                "cannot be derived; use a template that only appends, such as TRL's get_training_chat_template gives"
            )
        first, second, third, fourth = (text.split(mark, 1)[0] for mark in (a, b, c, d))
        end = tokenizer.convert_ids_to_tokens(tokenizer.eos_token_id) if tokenizer.eos_token_id is not None else None
        after_answer = fourth[len(third) + len(c) :]
        if not end or not after_answer.startswith(end):
            raise ConfigError(
                f"the chat template ends an answer with {after_answer[:20]!r}, not with the end-of-text token {end!r}; "
                "set the tokenizer's eos_token to the token that ends a turn"
            )
        self.end_id = int(tokenizer.eos_token_id)
        self._open_system = self._delimiter(first)
        self._system_to_user = self._delimiter(second[len(first) + len(a) :])
        alone = tokenizer.apply_chat_template([{"role": "user", "content": a}], tokenize=False)
        self._open_user = self._delimiter(alone.split(a, 1)[0])
        self._to_assistant = self._delimiter(text.split(d, 1)[1])
        self._after_end = self._delimiter(after_answer[len(end) :])

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
        """Tokens of untrusted text: never an added token, whatever the text says."""
        ids = tuple(self._plain.encode(text, add_special_tokens=False).ids)
        if self._added_ids.isdisjoint(ids):
            return ids
        for token in self._added:
            if len(token) > 1 and (at := text.find(token)) >= 0:
                return self._content(text[: at + 1]) + self._content(text[at + 1 :])
        raise ConfigError(f"the text {text[:40]!r} cannot be encoded without an added token; use another tokenizer")

    def decode(self, ids: Sequence[int]) -> str:
        """Text of sampled tokens, without the end token; other added tokens are dropped."""
        return str(self.tokenizer.decode([i for i in ids if i not in self._added_ids], skip_special_tokens=True))
