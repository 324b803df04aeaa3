"""``hiplan inspect`` and ``hiplan report``: show what a run has written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from hiplan.errors import ConfigError
from hiplan.report.files import read_episodes
from hiplan.report.html import write_report
from hiplan.report.overview import overview
from hiplan.report.terminal import Terminal
from hiplan.report.transcript import print_transcript
from hiplan.text import clean
from hiplan.trace import Episode, Verdict


def inspect(
    source: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, or a JSONL file with one episode per line.")
    ],
    index: Annotated[int | None, typer.Option(help="Show only this episode, from 0, without the table.")] = None,
    verdict: Annotated[
        Verdict | None, typer.Option(help="Show only episodes with such an action.", metavar="VERDICT")
    ] = None,
) -> None:
    """Show a table of a run's episodes and one transcript.

    \b
      hiplan inspect runs/mixed-split-0
      hiplan inspect runs/mixed-split-0 --index 3
      hiplan inspect runs/mixed-split-0 --verdict "off plan"

    The transcript shows for each action its verdict with the evidence, the step it served, the steps that it completed
    (done) or that have failed after it, and the observation.

    \b
    Verdicts:
      on plan             the action served a ready step
      premature           it served a step whose dependencies are not done
      repeated            it served a step that was done already
      off plan            it served no step
      unplanned recovery  it served no step, but had an effect after a failure

    A revision shows its reason and the change of each step: added (+), reworded (~), done (✓), dropped. Text written by
    models and environments follows a bar (│).

    \b
    Scores, at the end:
      adherence           share of the actions that were on plan
      coverage            share of the last plan's steps that are done
      order violations    number of premature actions
      drift               longest run of actions off plan
      stability           edits per revision: steps added, dropped, changed
    """
    console = Terminal()
    episodes = choose(source, index, verdict)
    if index is None and len(episodes) > 1:
        console.print(overview(episodes))
    number, episode = next(iter(episodes.items()))
    print_transcript(episode, console)
    if index is None and len(episodes) > 1:
        console.print(Text(f"\nThis is episode {number}. Show another one with --index NUMBER.", "dim"))


def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]) -> None:
    """Rewrite the report.html of a run.

    \b
      hiplan report runs/mixed-split-0
    """
    if not run.is_dir():
        raise ConfigError(f"no run folder at {str(run)!r}; expected the folder of a run, such as runs/mixed-split-0")
    typer.echo(clean(str(write_report(run))))


def choose(source: Path, index: int | None = None, verdict: Verdict | None = None) -> dict[int, Episode]:
    """The selected episodes by their number in the file; at least one.

    Raises ``UserError`` if there are none, with what the file has instead.
    """
    path = source / "transcripts.jsonl" if source.is_dir() else source
    episodes = dict(enumerate(read_episodes(path)))
    if not episodes:
        raise ConfigError(f"no episodes at {str(path)!r}; expected a run folder or a JSONL file of episodes")
    if index is not None and index not in episodes:
        raise ConfigError(f"{str(path)!r} has no episode {index}; expected 0 to {len(episodes) - 1}")
    chosen = episodes if index is None else {index: episodes[index]}
    if verdict is not None:
        chosen = {i: e for i, e in chosen.items() if any(turn.verdict is verdict for turn in e.turns)}
    if not chosen:
        where = f"episode {index}" if index is not None else f"any of the {len(episodes)} episodes"
        raise ConfigError(f"no action {str(verdict)!r} in {where} of {str(path)!r}; try another verdict")
    return chosen
