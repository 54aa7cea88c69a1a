"""The findings of `lint` for a terminal: the answer, a table, and what to do about each. Draws, computes nothing."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from memfit.report.lint_summary import LintFinding, LintReport
from memfit.report.terminal import say, section, show, table
from memfit.units import format_bytes, format_seconds


def lint_headline(report: LintReport) -> str:
    """The answer in one line.

    >>> lint_headline(LintReport("net.py:step", (), 1 << 20, 1 << 19, 1.0))
    'Nothing is kept for nothing: peak live 1.00 MiB, of which graphs save 512 KiB for backward'
    """
    kept = f"peak live {format_bytes(report.peak)}, of which graphs save {format_bytes(report.saved)} for backward"
    if not report.findings:
        return f"Nothing is kept for nothing: {kept}"
    count = len(report.findings)
    return f"{count} finding{'s' if count > 1 else ''}: {kept}"


def draw_lint(console: Console, report: LintReport) -> None:
    """Print the report."""
    say(console, lint_headline(report), style="bold")
    say(console, f"{report.target}: projected, nothing was run; {format_seconds(report.seconds)}", style="dim")
    if report.findings:
        section(console, "Findings, the most bytes at the peak first")
        drawn = table("rule", "line", "bytes", "")
        for one in report.findings:
            drawn.add_row(Text(one.rule), Text(one.line or "?"), format_bytes(one.nbytes), Text(_where(one)))
        show(console, drawn)
        for number, one in enumerate(report.findings, 1):
            module = f" ({one.module})" if one.module and one.module not in one.what else ""
            say(console, f"{number}. {one.rule}: {one.what}{module}")
            say(console, f"   -> {one.fix}", style="green")
    for note in report.notes:
        say(console, f"note: {note}", style="dim")


def _where(one: LintFinding) -> str:
    return (
        "off the peak"
        if one.at_peak
        else "more each step"
        if one.a_step
        else "held, not at the peak"
        if one.nbytes
        else "results"
    )
