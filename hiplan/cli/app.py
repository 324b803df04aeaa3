"""The command line: its commands, and how a user's mistakes are told."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import typer

from hiplan.cli import look, measure, plans, stages, train
from hiplan.errors import UserError
from hiplan.report.terminal import Terminal

HELP = """Train and run planner-executor language-model agents.

\b
  hiplan train                          three stages on the embedded tasks with the shipped model
  hiplan inspect runs/mixed-split-0     how its episodes went
  hiplan play runs/mixed-split-0/stages/joint
  hiplan evaluate runs/mixed-split-0/stages/joint --panel-seed 7
"""

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=HELP,
    pretty_exceptions_enable=False, pretty_exceptions_show_locals=False,  # typer's tracebacks show locals, keys too
)  # fmt: skip
app.command()(train.train)
app.command()(measure.evaluate)
app.command()(measure.play)
app.command()(measure.diagnose)
app.command()(plans.plans)
app.command()(stages.export)
app.command()(stages.convert)
app.command()(look.inspect)
app.command()(look.report)


def prepare() -> None:
    """Settings that libraries read when they are imported: no downloads, no telemetry, no chatter."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def run(command: Callable[[], Any]) -> int:
    """Run a command and return its exit code; a user's mistake is one line on standard error and exit code 2."""
    prepare()
    try:
        command()
    except SystemExit as ended:  # typer's own end
        return int(ended.code or 0)
    except UserError as error:
        Terminal(stderr=True).error(error)
        return 2
    return 0


def exit_process(code: int) -> None:
    """End the process; one of several that were started together ends without Python's own clearing up."""
    if "LOCAL_RANK" in os.environ:
        from hiplan.training.processes import exit_now

        exit_now(code)
    sys.exit(code)


def main() -> None:
    """Run the ``hiplan`` command."""
    exit_process(run(app))
