"""Reports: figures, terminal views and HTML pages, made only from stored episodes and metrics."""

from hiplan.report.curves import draw_curves
from hiplan.report.graph import draw_plan
from hiplan.report.html import write_report
from hiplan.report.tables import markdown_table, results_table
from hiplan.report.transcript import print_transcript, transcript

__all__ = [
    "draw_curves",
    "draw_plan",
    "markdown_table",
    "print_transcript",
    "results_table",
    "transcript",
    "write_report",
]
