"""Matchers decide which steps of the plan an action serves; pass one as ``adaplan(matcher=...)``.

A matcher gets the plan, the action, its observation, and the environment's own answers if there are any. It is a
sub-generator, so that a matcher that asks a model works with every driver; ``pure`` wraps a plain function as a
matcher. docs/adherence.md reports the precision and recall of each.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Literal

from hiplan.effects import Effects, Generate
from hiplan.plan import Plan
from hiplan.trace import Conversation, Role


@dataclass(frozen=True)
class Match:
    """A step that an action serves, with the evidence and a score from 0 to 1."""

    step: int
    evidence: str
    score: float = 1.0


Serves = Sequence[bool] | None  # the environment's answer per step, asked before the action; None if it has none
Matcher = Callable[[Plan, str, str, Serves], Effects[Sequence[Match]]]


def pure(match: Callable[[Plan, str, str, Serves], Sequence[Match]]) -> Matcher:
    """Wrap a plain function as a matcher."""

    @wraps(match)
    def matcher(plan: Plan, action: str, observation: str, serves: Serves) -> Effects[Sequence[Match]]:
        yield from ()
        return match(plan, action, observation, serves)

    return matcher


@pure
def by_environment(plan: Plan, action: str, observation: str, serves: Serves) -> list[Match]:
    """The steps that the environment reports; none if it reports nothing."""
    return [
        Match(step.id, "the environment's predicate")
        for step, hit in zip(plan.steps, serves or (), strict=False)
        if hit
    ]


THRESHOLD = 0.5 - 1e-9  # half of the weight suffices, with a margin for rounding
SYNONYM_GROUPS = tuple(
    tuple(words.split())
    for words in (
        "make craft build create produce assemble construct forge",
        "get fetch take grab collect gather pick obtain",
        "go move walk navigate travel head",
        "put place insert drop set lay",
        "find locate look search seek examine inspect check",
        "clean wash rinse",
        "heat warm cook",
        "cool chill",
        "use apply",
    )
)
SYNONYMS = {word: group[0] for group in SYNONYM_GROUPS for word in group}
_WORD = re.compile(r"[^\W_]+")
_SUFFIX = re.compile(r"(?<=[^\W\d_]{3})(?:ing|ed|es|s)$")
_EMPTY = frozenset("a an and at for from in into it of on onto or the then to up with".split())
_MEANS = re.compile(r"\b(?:using|with|from|by)\b", re.IGNORECASE)


def stems(text: str) -> list[str]:
    """Lower-case words without suffixes and function words; synonyms map to one word."""
    words = [word for word in _WORD.findall(text.lower()) if word not in _EMPTY]
    return [SYNONYMS.get(stem := _SUFFIX.sub("", SYNONYMS.get(word, word)), stem) for word in words]


def lexical_scores(plan: Plan, action: str, observation: str) -> list[float]:
    """Per step, the weighted share of its words that occur in the action or the observation, from 0 to 1.

    Each word has the weight ``log(1 + n / df)``, where ``df`` of the ``n`` steps contain it. Words that occur only in
    the observation, or only after *using*, *with*, *from* or *by*, count half, because they often name an ingredient
    and not the product. A step scores 0 if the action itself has none of its words.
    """
    words = [set(stems(step.description)) for step in plan.steps]
    df = Counter(word for step in words for word in step)
    weight = {word: math.log(1 + len(words) / count) for word, count in df.items()}
    said = set(stems(_MEANS.split(action)[0]))
    seen = {*stems(action), *stems(observation)}
    found = {word: weight[word] * (1.0 if word in said else 0.5) for word in df if word in said or word in seen}
    return [
        math.fsum(found.get(word, 0.0) for word in step) / math.fsum(weight[word] for word in step)
        if step & said
        else 0.0
        for step in words
    ]


def needs(plan: Plan) -> list[set[str]]:
    """Per step, the ingredients that the plan's rationale lists for it: ``door: plank, nail`` for *make door*.

    Words that occur in any step are left out, because a step of their own produces them.
    """
    words = [set(stems(step.description)) for step in plan.steps]
    every = set().union(*words)
    notes = [
        (set(stems(head)), set(stems(rest)))
        for head, _, rest in (line.partition(":") for line in plan.rationale.splitlines())
    ]
    return [set().union(*(rest - every for head, rest in notes if head and rest and head <= step)) for step in words]


@pure
def by_words(plan: Plan, action: str, observation: str, serves: Serves) -> list[Match]:
    """Steps with a lexical score of at least one half, best first; else the steps whose ``needs`` the action names."""
    seen = {*stems(action), *stems(observation)}
    found = [
        Match(
            step.id, "shared words: " + ", ".join(w for w in dict.fromkeys(stems(step.description)) if w in seen), score
        )
        for step, score in zip(plan.steps, lexical_scores(plan, action, observation), strict=True)
        if score >= THRESHOLD
    ]
    said = stems(action)
    return sorted(found, key=lambda match: -match.score) or [
        Match(step.id, f"needed words in the rationale: {', '.join(w for w in said if w in wanted)}", THRESHOLD)
        for step, wanted in zip(plan.steps, needs(plan), strict=True)
        if wanted.intersection(said)
    ]


def best_known(plan: Plan, action: str, observation: str, serves: Serves) -> Effects[Sequence[Match]]:
    """The default: ``by_environment`` if the environment is ``PlanAware``, else ``by_words``."""
    return (yield from (by_words if serves is None else by_environment)(plan, action, observation, serves))


MatcherName = Literal["best_known", "by_environment", "by_words"]
MATCHERS: Mapping[str, Matcher] = {  # the names in settings
    "best_known": best_known,
    "by_environment": by_environment,
    "by_words": by_words,
}


def by_model(role: Role = "executor") -> Matcher:
    """Ask the role's model which steps the action serves, in a separate conversation per action."""

    def matcher(plan: Plan, action: str, observation: str, serves: Serves) -> Effects[Sequence[Match]]:
        conversation = Conversation(role)
        listed = "\n".join(f"{step.id}. {step.description}" for step in plan.steps)
        conversation.ask(
            f"Plan:\n{listed}\n\nAction: {action}\nResult: {observation}\n\nWhich steps of the plan does this action "
            "work towards? Answer with their numbers alone, or none.",
            0,
        )
        done = yield from Generate(conversation)
        known = {step.id for step in plan.steps}
        numbers = [int(n) for n in re.findall(r"\d{1,6}", done.text) if int(n) in known]
        return [Match(i, "named by the model") for i in dict.fromkeys(numbers)]

    return matcher
