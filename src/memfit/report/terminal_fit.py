"""The summary of a fit, for a terminal: does it keep the budget, at what cost, with the same results, how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from memfit.report.summary import FitReport
from memfit.report.terminal import bytes_or_dash, name_files, say, section, show, table
from memfit.report.words import round_size
from memfit.units import format_bytes, format_seconds

_BYTES = ("peak", "byte", "budget", "measured", "projected")


def draw_fit(console: Console, report: FitReport, written: Sequence[str] = ()) -> None:
    """Print the summary of ``report``; ``written``: paths of files to name at the end."""
    say(console, fit_headline(report), style="bold")
    say(console, f"{report.target}, planned in {format_seconds(report.plan_seconds)}", style="dim")
    if not report.feasible:
        smallest = report.smallest_feasible
        say(console, f"The smallest feasible budget is {format_bytes(smallest)} ({smallest} bytes).")
    section(console, "Before and after")
    _draw_sides(console, report)
    section(console, "Levers")
    _draw_levers(console, report)
    if report.verified:
        section(console, "Verified by running both")
        for name, found in report.verified.items():
            say(console, f"  {verdict(found):<4}{sentence(name, found)}")
    else:
        section(console, "Not verified: nothing was run (--no-verify)")
    if report.recipe:
        section(console, "Use it")
        for line in use_it(report):
            say(console, f"  {line}")
    for note in report.notes:
        say(console, f"note: {note}", style="dim")
    name_files(console, written)


def fit_headline(report: FitReport) -> str:
    """The answer in one sentence."""
    measured = report.fitted.measured_peak
    peak = (
        f"{format_bytes(measured)} measured"
        if measured is not None
        else f"{format_bytes(report.fitted.projected_peak)} projected"
    )
    before = (
        report.baseline.measured_peak
        if measured is not None and report.baseline.measured_peak
        else report.baseline.projected_peak
    )
    reached = measured if measured is not None else report.fitted.projected_peak
    share = f", {reached / before:.0%} of the unmodified peak" if before else ""
    if not report.feasible:
        return f"Does NOT fit {round_size(report.budget)}: peak {peak}{share}"
    cost = f", {report.overhead:.2f}x the step time" if report.overhead is not None else ""
    results = "not verified" if not report.verified else "bit-identical" if report.exact else "not bit-identical"
    return f"Fits {round_size(report.budget)}: peak {peak}{share}{cost}, {results}"


def use_it(report: FitReport) -> list[str]:
    """The lines of Python that use a recipe."""
    return [f"run = memfit.fit(step, {report.budget}, recipe={report.recipe!r})", "loss = run(batch)"]


def verdict(found: Any) -> str:
    """``yes``, ``NO``, or nothing where the figure speaks for itself."""
    ok = found.get("ok") if isinstance(found, Mapping) else found
    return ("yes" if ok else "NO") if isinstance(ok, bool) else ""


def sentence(name: str, found: Any) -> str:
    """A check of the verification in words.

    >>> sentence("gradient", {"ok": True, "compared": 148, "differs": ""})
    'gradient bit-identical (148 compared)'
    >>> sentence("budget", {"ok": True, "measured": 2048})
    'budget: measured 2.00 KiB'
    """
    words = name.replace("_", " ")
    if isinstance(found, bool):
        return words
    if not isinstance(found, Mapping):
        return f"{words}: {_plain(name, found)}"
    if "compared" in found:
        differs = f" in {found['differs']}" if found.get("differs") else ""
        return f"{words} {'bit-identical' if found.get('ok') else 'differs' + differs} ({found['compared']} compared)"
    rest = [f"{str(k).replace('_', ' ')} {_plain(k, v)}" for k, v in found.items() if k != "ok" and v not in (None, "")]
    return f"{words}: {', '.join(rest)}" if rest else words


def _plain(name: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and any(word in name for word in _BYTES):
        return format_bytes(value)
    if isinstance(value, float):
        return format_seconds(value) if "second" in name else f"{value:.4g}"
    return str(value)


def _draw_sides(console: Console, report: FitReport) -> None:
    drawn = table("", "baseline", "fitted", "")
    before, after = report.baseline, report.fitted
    for name, old, new in (
        ("projected peak", before.projected_peak, after.projected_peak),
        ("measured peak", before.measured_peak, after.measured_peak),
    ):
        drawn.add_row(Text(name), bytes_or_dash(old), bytes_or_dash(new), f"{new / old:.0%}" if old and new else "")
    times = [("-" if s is None else format_seconds(s)) for s in (before.step_seconds, after.step_seconds)]
    drawn.add_row(Text("step time"), *times, f"{report.overhead:.2f}x" if report.overhead is not None else "")
    drawn.add_row(Text("budget"), "", format_bytes(report.budget), "")
    if report.lower_bound:
        drawn.add_row(Text("no plan goes below"), "", format_bytes(report.lower_bound), "")
    show(console, drawn)


def _draw_levers(console: Console, report: FitReport) -> None:
    if not report.levers:
        say(console, "  none was needed")
        return
    drawn = table("", "saved", "cost per step", "results")
    for lever in report.levers:
        name = Text(lever.name.replace("_", " "))
        if lever.detail:
            name.append(f"  {lever.detail}", "dim")
        cost = "none" if abs(lever.cost_seconds) < 5e-7 else f"{format_seconds(lever.cost_seconds)}"
        drawn.add_row(name, format_bytes(lever.saved), cost, lever.numerics)
    show(console, drawn)
