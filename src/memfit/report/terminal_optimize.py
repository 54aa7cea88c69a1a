"""The terminal summary of ``optimize``: one table, what to run it with, what was checked."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from memfit.report.optimize_summary import OptimizeReport
from memfit.units import format_bytes


def draw_optimize(console: Console, report: OptimizeReport) -> None:
    """Print the summary."""
    console.print(f"[bold]{escape(report.target)}[/bold]")
    table = Table(box=None, pad_edge=False)
    for title in ("", "before", "after", "change"):
        table.add_column(title, justify="left" if not title else "right")
    before, after = report.before, report.after
    table.add_row("operations", str(before.nodes), str(after.nodes), _change(before.nodes, after.nodes))
    at = ", ".join(f"{name}={size}" for name, size in report.sizes.items())
    rows = [
        ("file", before.file_bytes, after.file_bytes), ("constants", before.constants, after.constants),
        (f"constants + live peak, projected{f' at {at}' if at else ''}", before.peak, after.peak),
    ]  # fmt: skip
    if before.resident is not None and after.resident is not None:
        rows.append(("process peak in ONNX Runtime, measured", before.resident, after.resident))
    for label, old, new in rows:
        table.add_row(escape(label), format_bytes(old), format_bytes(new), _change(old, new))
    console.print(table)
    settings = {**report.runtime.get("settings", {}), **report.runtime.get("environment", {})}
    if settings:
        console.print("run it with: " + escape(", ".join(f"{k}={v}" for k, v in settings.items())))
    if report.max_error is None:
        console.print("outputs were not compared")
    elif report.exact:
        console.print("outputs: the same bits")
    else:
        console.print(f"outputs: largest relative difference {report.max_error:.1e}")
    if "fits" in report.extra:
        then, now = ("fits" if report.extra[key] else "does not fit" for key in ("fitted_before", "fits"))
        size = format_bytes(report.extra["capacity"])
        console.print(escape(f"{now} in the {size} of {report.extra['device']}; before the passes it {then}"))
    for note in report.notes:
        console.print(escape(note))
    if report.output:
        console.print(f"written: {escape(report.output)}", soft_wrap=True)


def _change(old: int, new: int) -> str:
    return "" if not old else f"{100 * (new - old) / old:+.1f}%"
