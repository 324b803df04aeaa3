"""The ``hiplan`` command: train, evaluate, play, diagnose, plans, export, convert, inspect, report."""

from hiplan.cli.app import main

__all__ = ["main"]
