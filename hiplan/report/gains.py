"""The gain by training: the last stage against the first on the same tasks, by environment.

Differences are paired by task. Their 95 % t-intervals are over tasks and do not cover the variation over training
seeds. Both stages are compared with the same decoding, greedy if both were evaluated with it. If other decodings are
best on dev, a second comparison uses the best decoding of each stage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from hiplan.envs.tasks import ALL
from hiplan.evaluation import paired
from hiplan.report.tables import AGENTS, Panels, Row, places, results

Ends = tuple[str, str]


@dataclass(frozen=True)
class Change:
    """Success before and after training, and the paired difference with its interval; shares from 0 to 1."""

    start: float
    end: float
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        shown = [f"{round(100 * x, 0) + 0.0:+.0f}" for x in (self.mean, self.low, self.high)]  # never "-0"
        return shown[0] if math.isnan(self.low) else f"{shown[0]} [{shown[1]}, {shown[2]}]"


@dataclass(frozen=True)
class Gain:
    """The changes of one agent by environment and panel. ``decodings``: before and after training."""

    agent: str
    decodings: Ends
    changes: Mapping[str, Mapping[str, Change]]

    @property
    def same_decoding(self) -> bool:
        """Whether both evaluations used the same decoding."""
        return self.decodings[0] == self.decodings[1]

    @property
    def decoding_label(self) -> str:
        """The decoding, or both as ``t0.7 → greedy``."""
        return self.decodings[0] if self.same_decoding else " → ".join(self.decodings)


def gains(evals: Sequence[Row], panels: Panels | None = None) -> list[Gain]:
    """The gains of each agent: with a common decoding if there is one, then with the best on dev if those differ."""
    found = []
    shown = results(evals)
    for agent in dict.fromkeys(result.agent for result in shown):
        mine = [result for result in shown if result.agent == agent]
        if len(mine) < 2:
            continue
        start, end = (_newest(evals, result.stage, agent) for result in (mine[0], mine[-1]))
        common = sorted({name for name, panel in start if (name, panel) in end}, key=lambda name: name != "greedy")
        like, best = [(name, name) for name in common[:1]], (mine[0].decoding, mine[-1].decoding)
        for ends in dict.fromkeys([*like, best]):
            changes = _changes(start, end, ends, panels or {})
            if changes:
                found.append(Gain(agent, ends, changes))
    return sorted(found, key=lambda gain: list(AGENTS).index(gain.agent) if gain.agent in AGENTS else len(AGENTS))


def _newest(evals: Sequence[Row], stage: str, agent: str) -> dict[tuple[str, str], Row]:
    """The newest evaluation rows of an agent after a stage, by decoding and panel."""
    rows = [r for r in evals if r.get("kind", "eval") == "eval" and str(r["stage"]) == stage]
    rows = [r for r in rows if str(r.get("agent", "plan")) == agent]
    rows.sort(key=lambda r: int(r.get("iteration", 0)))
    return {(str(r.get("decoding", "")), str(r["panel"])): r for r in rows}


def _changes(
    start: Mapping[tuple[str, str], Row], end: Mapping[tuple[str, str], Row], ends: Ends, panels: Panels
) -> dict[str, dict[str, Change]]:
    """Changes by environment and panel; rows without the solved tasks give no environments and no intervals."""
    found: dict[str, dict[str, Change]] = {}
    for (name, panel), before in start.items():
        after = end.get((ends[1], panel))
        if name != ends[0] or after is None:
            continue
        where = places(before, panels.get(panel))
        if not where or len(where[ALL]) != len(str(after.get("solved", ""))):
            shares = float(before["success"]), float(after["success"])
            found.setdefault(ALL, {})[panel] = Change(*shares, shares[1] - shares[0], math.nan, math.nan)
            continue
        for part, tasks in where.items():
            one, other = ([float(row["solved"][i] == "1") for i in tasks] for row in (after, before))
            found.setdefault(part, {})[panel] = Change(fmean(other), fmean(one), *paired([one], [other]))
    return dict(sorted(found.items(), key=lambda entry: (entry[0] != ALL, entry[0])))
