"""A table of the episodes in a file, one row each."""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from hiplan.coordination import scores
from hiplan.report.transcript import title
from hiplan.text import shorten
from hiplan.trace import Episode

MAX_ROWS = 40


def overview(episodes: Mapping[int, Episode]) -> Table:
    """The first ``MAX_ROWS`` episodes by number: goal, outcome, turns, revisions, adherence, coverage."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("goal")
    table.add_column("ended", no_wrap=True)
    for name in ("turns", "revisions", "adherence", "coverage"):
        table.add_column(name, justify="right", no_wrap=True)
    for number, episode in list(episodes.items())[:MAX_ROWS]:
        found = scores(episode)
        outcome = Text("success", "green") if episode.success else Text(str(episode.stop or "not finished"), "red")
        counts = (str(len(episode.turns)), str(episode.revisions()), _share(found.adherence), _share(found.coverage))
        table.add_row(Text(str(number)), Text(shorten(title(episode), 60)), outcome, *map(Text, counts))
    if len(episodes) > MAX_ROWS:
        table.caption = f"and {len(episodes) - MAX_ROWS} more"
    return table


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
