"""The answers of `memfit data`, for a terminal. Draws, computes nothing but shares."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from memfit.report.terminal import say, section, show, table
from memfit.units import format_bytes, format_seconds

MOST_CHANNELS = 16


def draw_contents(console: Console, answer: dict[str, Any]) -> None:
    """Print what a data set holds, and how much of it lies in the page cache."""
    say(console, f"{answer['path']}: {answer['rows']} rows, {format_bytes(answer['bytes'])}", style="bold")
    drawn = table("column", "type", "a row", "bytes", "in page cache", "meaning")
    for column in answer["columns"]:
        shape = "ragged" if column["ragged"] else " x ".join(map(str, column["shape"])) or "one"
        drawn.add_row(
            Text(column["name"]), column["dtype"], shape, format_bytes(column["bytes"]),
            f"{format_bytes(column['resident'])} ({100 * column['resident'] / max(column['bytes'], 1):.0f} %)",
            Text(column["meaning"]),
        )  # fmt: skip
    show(console, drawn)
    for note in answer.get("notes", []):
        say(console, f"note: {note}", style="dim")


def draw_statistics(console: Console, answer: dict[str, Any]) -> None:
    """Print the figures of every column, channel by channel."""
    say(console, f"{answer['path']}: {answer['rows']} rows, read in {format_seconds(answer['seconds'])}", style="bold")
    for name, figures in answer["columns"].items():
        section(console, name)
        shares = list(figures.get("quantiles", {}))
        drawn = table("channel", "count", "mean", "std", "min", "max", *(f"{100 * float(s):g} %" for s in shares))
        for c in range(min(len(figures["count"]), MOST_CHANNELS)):
            values = [figures[key][c] for key in ("mean", "std", "min", "max")]
            values += [figures["quantiles"][share][c] for share in shares]
            drawn.add_row(str(c), str(figures["count"][c]), *(_number(value) for value in values))
        show(console, drawn)
        if len(figures["count"]) > MOST_CHANNELS:
            say(console, f"  and {len(figures['count']) - MOST_CHANNELS} more channels: --json has them", style="dim")
        if figures.get("quantile_error"):
            say(
                console,
                f"  quantiles within {100 * figures['quantile_error']:.1f} % of the value; --exact reads twice",
                style="dim",
            )


def draw_bench(console: Console, answer: dict[str, Any]) -> None:
    """Print what a loader reaches, against what this machine can."""
    say(console, answer["verdict"], style="bold")
    drawn = table("", "figure")
    for name, value in answer["figures"]:
        drawn.add_row(name, value)
    show(console, drawn)
    for note in answer.get("notes", []):
        say(console, f"note: {note}", style="dim")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"
