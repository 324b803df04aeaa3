"""The command line: registers the commands and reports user errors."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from hiplan.cli import measure, plans, reports, stages, train
from hiplan.errors import UserError
from hiplan.report.terminal import Terminal

HELP = """Train and run planner-executor language-model agents.

\b
  hiplan train                         train the shipped model in three stages
  hiplan inspect runs/mixed-split-0    show sampled episodes of the run
  hiplan play runs/mixed-split-0/stages/joint
  hiplan evaluate runs/mixed-split-0/stages/joint --panel-seed 7
"""

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=HELP,
    pretty_exceptions_enable=False, pretty_exceptions_show_locals=False,  # typer's tracebacks would show API keys
)  # fmt: skip
app.command()(train.train)
app.command()(measure.evaluate)
app.command()(measure.play)
app.command()(measure.diagnose)
app.command()(plans.plans)
app.command()(stages.export)
app.command()(stages.convert)
app.command()(reports.inspect)
app.command()(reports.report)


def prepare() -> None:
    """Set the environment variables that libraries read at import: no downloads, no telemetry, no progress bars."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def run(command: Callable[[], Any]) -> int:
    """Run a command and return its exit code; a ``UserError`` is one line on standard error and exit code 2."""
    prepare()
    try:
        command()
    except SystemExit as ended:  # raised by typer
        return int(ended.code or 0)
    except UserError as error:
        Terminal(stderr=True).error(error)
        return 2
    return 0


def exit_process(code: int) -> NoReturn:
    """End the process; a finished process of a distributed run ends without the interpreter's shutdown.

    torch 2.13 caches the device mesh of a sharded model and thereby keeps gloo's threads alive. If such a thread still
    has tensors of the last message when the interpreter shuts down, it aborts the process, and the launcher reports the
    run as failed.
    """
    if "LOCAL_RANK" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def main() -> None:
    """Run the ``hiplan`` command."""
    exit_process(run(app))
