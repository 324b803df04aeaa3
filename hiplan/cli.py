"""The ``hiplan`` command: look at what runs have written. Training is ``python experiments/run.py``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from hiplan.errors import ConfigError, UserError
from hiplan.report.html import write_report
from hiplan.report.transcript import print_transcript
from hiplan.trace import Episode

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Look at what hiplan's runs have written.")


@app.command()
def show(
    source: Annotated[Path, typer.Argument(help="A run folder, or a JSONL file with one episode per line.")],
    index: Annotated[int, typer.Option(help="Which episode, from 0.")] = 0,
) -> None:
    """Print one episode's transcript: plan, actions with verdicts, revisions with reasons."""
    print_transcript(read_episode(source, index), Console())


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Write the run's report.html anew."""
    if not run.is_dir():
        raise ConfigError(f"no run folder at {str(run)!r}")
    typer.echo(write_report(run))


def read_episode(source: Path, index: int) -> Episode:
    """One episode of a run's samples. Raises ``ConfigError`` that says what is there instead."""
    path = source / "transcripts.jsonl" if source.is_dir() else source
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"no episodes at {str(path)!r}; expected a run folder or a JSONL file of episodes") from None
    if not 0 <= index < len(lines):
        raise ConfigError(f"{str(path)!r} has no episode {index}; it holds {len(lines)}, counted from 0")
    try:
        return Episode.from_json(lines[index])
    except ValidationError as error:
        raise ConfigError(f"line {index + 1} of {str(path)!r} is not an episode: {error.errors()[0]['msg']}") from None


def main() -> None:
    """Run the command; a user's mistake is one line on standard error and exit code 2."""
    try:
        app()
    except UserError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
