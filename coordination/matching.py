"""Which steps of the plan an action serves. A matcher is a function that can be swapped (``adaplan(matcher=...)``).

It is given the steps, the action, the observation that came back, and the environment's own answers where it has
them, and it is a sub-generator, so that one that asks a model runs in every driver; ``pure`` makes one of a plain
function. How good each is: docs/adherence.md.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

from hiplan.plan import PlanStep
from hiplan.requests import Ask, Generate, Steps
from hiplan.trace import Conversation, Role


@dataclass(frozen=True)
class Match:
    """A step that an action serves, why it is thought so, and how sure it is (0 to 1)."""

    step: int
    evidence: str
    score: float = 1.0


Serves = Sequence[bool] | None  # the environment's answer per step, taken before the action; None where it has none
Matcher = Callable[[Sequence[PlanStep], str, str, Serves], Steps[Sequence[Match]]]


def pure(match: Callable[[Sequence[PlanStep], str, str, Serves], Sequence[Match]]) -> Matcher:
    """A matcher that asks nobody."""

    @wraps(match)
    def matcher(
        steps: Sequence[PlanStep], action: str, observation: str, serves: Serves
    ) -> Generator[Ask, Any, Sequence[Match]]:
        yield from ()
        return match(steps, action, observation, serves)

    return matcher


@pure
def by_environment(steps: Sequence[PlanStep], action: str, observation: str, serves: Serves) -> list[Match]:
    """What the environment says; nothing where it says nothing."""
    return [
        Match(step.id, "the environment's predicate") for step, hit in zip(steps, serves or (), strict=False) if hit
    ]


THRESHOLD = 0.5
SYNONYMS = {
    word: words[0]
    for words in (
        "make craft build create produce assemble construct forge".split(),
        "get take fetch grab collect gather pick obtain".split(),
        "go move walk navigate travel head".split(),
        "put place insert drop set lay".split(),
        "find look search locate seek examine inspect check".split(),
        "clean wash rinse".split(),
        "heat warm cook".split(),
        "cool chill".split(),
        "use apply".split(),
    )
    for word in words
}
_WORD = re.compile(r"[^\W_]+")
_SUFFIX = re.compile(r"(?<=[^\W\d_]{3})(?:ing|ed|es|s)$")
_EMPTY = frozenset("a an and at from in into it of on onto or the then to up with".split())


def stems(text: str) -> list[str]:
    """Words without endings, synonyms made one; numbers and small words left out unless they stand alone."""
    words = [word for word in _WORD.findall(text.lower()) if word not in _EMPTY]
    return [SYNONYMS.get(stem := _SUFFIX.sub("", SYNONYMS.get(word, word)), stem) for word in words]


def lexical_scores(steps: Sequence[PlanStep], action: str, observation: str) -> list[float]:
    """Per step, the share of its words found in the action, or for half as much in the observation alone.

    Words weigh ``log(1 + n / df)``: those in many of the ``n`` steps say little.
    """
    words = [set(stems(step.description)) for step in steps]
    df = Counter(word for step in words for word in step)
    weight = {word: math.log(1 + len(steps) / count) for word, count in df.items()}
    said, seen = set(stems(action)), set(stems(observation))
    found = {word: weight[word] * (1.0 if word in said else 0.5) for word in df if word in said or word in seen}
    return [
        sum(found.get(word, 0.0) for word in step) / sum(weight[word] for word in step) if step and step & said else 0.0
        for step in words
    ]


@pure
def by_words(steps: Sequence[PlanStep], action: str, observation: str, serves: Serves) -> list[Match]:
    """Steps half of whose weighted words appear, best first; see ``lexical_scores``."""
    scores = lexical_scores(steps, action, observation)
    seen = {*stems(action), *stems(observation)}
    found = [
        Match(
            step.id, "shared words: " + ", ".join(dict.fromkeys(w for w in stems(step.description) if w in seen)), score
        )
        for step, score in zip(steps, scores, strict=True)
        if score >= THRESHOLD
    ]
    return sorted(found, key=lambda match: -match.score)


def best_known(steps: Sequence[PlanStep], action: str, observation: str, serves: Serves) -> Steps[Sequence[Match]]:
    """The default: the environment's predicate where there is one, words otherwise."""
    return (yield from (by_words if serves is None else by_environment)(steps, action, observation, serves))


def by_model(role: Role = "executor") -> Matcher:
    """Ask the role's model for the numbers of the steps served; it reads a conversation of its own each time."""

    def matcher(
        steps: Sequence[PlanStep], action: str, observation: str, serves: Serves
    ) -> Generator[Ask, Any, Sequence[Match]]:
        conversation = Conversation(role)
        listed = "\n".join(f"{step.id}. {step.description}" for step in steps)
        conversation.ask(
            f"Plan:\n{listed}\n\nAction: {action}\nResult: {observation}\n\nWhich steps of the plan does this action "
            "work towards? Answer with their numbers alone, or none.",
            0,
        )
        done = yield Generate(conversation)
        known = {step.id for step in steps}
        numbers = [int(n) for n in re.findall(r"\d{1,6}", done.text) if int(n) in known]
        return [Match(i, "the model says so") for i in dict.fromkeys(numbers)]

    return matcher
