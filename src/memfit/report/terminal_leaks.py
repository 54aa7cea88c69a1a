"""The verdict of a leak hunt, for a terminal: the answer in a sentence, then for each leak who, where, and what to do.

Draws, computes nothing but projections to a thousand steps. Every word stands without colour and within 80 columns.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from memfit.ir.leak import Finding, LeakReport
from memfit.report.terminal import name_files, say, section, show, table
from memfit.units import format_bytes, format_seconds

_SHOWN = 8


def leak_headline(report: LeakReport) -> str:
    """The answer in one sentence."""
    if report.leaking is None:
        return "No verdict: not enough steps to tell whether memory leaks"
    if not report.leaking:
        return f"No leak: after {report.steps} steps nothing grows without bound"
    if not report.findings:
        return f"Leak: memory grows by {format_bytes(report.bytes_per_step)} a step; who holds it was not found"
    first = report.findings[0]
    more = f", and {len(report.findings) - 1} more" if len(report.findings) > 1 else ""
    return f"Leak: {first.holder} keeps {format_bytes(first.bytes_per_step)} more at every step{more}"


def leak_facts(report: LeakReport) -> str:
    """What was run and looked at, in one line."""
    steps = f"{report.steps} steps ({report.step_source})" if report.step_source else "no steps"
    ended = ""
    if report.ended:
        ended = f"; it was {report.ended}" if report.ended.startswith("killed") else f"; it ended with {report.ended}"
    verdict = f", verdict in {format_seconds(report.verdict_seconds)}" if report.verdict_seconds else ""
    return f"{report.target}: {steps} in {format_seconds(report.seconds)}{verdict}{ended}"


def slope_words(finding: Finding) -> str:
    """Growth of one finding: bytes a step with their interval, objects, and what a thousand steps come to."""
    low, high = finding.interval
    spread = ""
    if 0 < low < finding.bytes_per_step < high or (low and high and high > 1.2 * low):
        spread = f" (between {format_bytes(max(0, low))} and {format_bytes(high)})"
    rate = finding.objects_per_step
    number = f"{round(rate)}" if abs(rate - round(rate)) <= 0.03 * rate else f"{rate:.3g}"
    objects = f", {number} object{'s' * (number != '1')}" if finding.objects_per_step >= 0.01 else ""
    per_thousand = format_bytes(1000 * finding.bytes_per_step)
    return f"{format_bytes(finding.bytes_per_step)} a step{spread}{objects}; {per_thousand} every 1,000 steps"


def places(finding: Finding) -> list[tuple[str, str]]:
    """The lines that a finding names, each once, with what happens there."""
    if finding.birth and finding.birth == finding.grown_at:
        return [("made and put there at" if finding.kind != "native" else "taken at", finding.birth)]
    found = [("put there at", finding.grown_at), ("made at", finding.birth)]
    return [(name, at) for name, at in found if at]


def leak_text(report: LeakReport) -> str:
    """The verdict as plain text, for a test's failure."""
    stream = io.StringIO()
    draw_leaks(Console(file=stream, width=100, highlight=False), report)
    return stream.getvalue()


def draw_leaks(console: Console, report: LeakReport, written: Sequence[str] = ()) -> None:
    """Print the verdict; ``written``: paths of files to name at the end."""
    style = {True: "bold red", False: "bold green", None: "bold yellow"}[report.leaking]
    say(console, leak_headline(report), style=style)
    say(console, leak_facts(report), style="dim")
    for number, finding in enumerate(report.findings[:_SHOWN], 1):
        _draw_finding(console, number, finding, report.lines)
    if len(report.findings) > _SHOWN:
        say(console, f"and {len(report.findings) - _SHOWN} smaller ones (--json has all)", style="dim")
    if report.quiet:
        section(console, "Grew, and is no leak")
        for row in report.quiet[:_SHOWN]:
            say(console, f"  {row['what']}: {row['why']}", style="dim")
    for note in report.notes:
        say(console, f"note: {note}", style="dim")
    if report.leaking is None:
        say(console, "let it run longer, or put memfit.watch() around the loop that repeats", style="dim")
    name_files(console, written)


def _draw_finding(console: Console, number: int, finding: Finding, lines: Mapping[str, str]) -> None:
    section(console, f"{number}. {finding.what}")
    drawn = table("", "")
    drawn.show_header = False
    drawn.columns[1].justify = "left"
    drawn.columns[1].no_wrap = False
    rows = [("grows by", slope_words(finding)), ("held by", finding.holder)]
    for name, at in places(finding):
        rows.append((name, at))
        if at in lines:
            rows.append(("", lines[at]))
    rows.append(("fix", finding.fix))
    for name, text in rows:
        drawn.add_row(Text(name, style="dim"), Text(text, style="bold" if name == "fix" else "" if name else "dim"))
    show(console, drawn)
