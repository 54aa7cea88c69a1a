"""The summary of a run with paged weights, for a terminal: what was projected, what was measured. Draws, computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from memfit.report.terminal import say, section, show, table
from memfit.units import format_bytes, format_seconds


def draw_run(console: Console, name: str, data: Mapping[str, Any]) -> None:
    """Print the summary of the report ``data`` of ``memfit.run``."""
    projected, measured, last = data["projected"], data["measured"], data["last_pass"]
    say(
        console,
        f"{format_bytes(data['weights'])} of weights ran within {format_bytes(data['budget'])}: "
        f"peak {format_bytes(measured['peak'])} measured"
        if measured["peak"] is not None
        else f"{format_bytes(data['weights'])} of weights ran within {format_bytes(data['budget'])}",
        style="bold",
    )
    say(console, name, style="dim")
    section(console, "Bytes")
    drawn = table("", "projected", "measured")
    rows = (
        ("peak, weights and everything else", projected["peak"], measured["peak"]),
        ("weights in memory", projected["resident_weights"], measured["resident_weights"]),
        ("activations, inputs, buffers", projected["everything_else"], None),
        ("read in one pass", projected["read_per_pass"], last["read"]),
    )
    for title, plan, real in rows:
        drawn.add_row(Text(title), format_bytes(plan), "" if real is None else format_bytes(real))
    show(console, drawn)
    say(
        console,
        f"  hits of a steady pass: projected {100 * projected['hit_rate']:.1f} %, measured {100 * last['hit_rate']:.1f} %; "
        f"no schedule reaches more than {100 * projected['hit_bound']:.1f} %",
        style="dim",
    )
    if data["pass_seconds"]:
        say(
            console,
            f"  last pass {format_seconds(data['pass_seconds'][-1])}, "
            f"{format_seconds(last['waited'])} of it waiting for weights",
            style="dim",
        )
    say(console, f"  the process's private memory grew by {format_bytes(measured['private'])}, the libraries' own included",
        style="dim")  # fmt: skip
    if "tokens_per_second" in data:
        say(
            console,
            f"  {len(data['generated'])} tokens generated, {data['tokens_per_second']:.2f} a second",
            style="dim",
        )
    if data.get("text"):
        section(console, "Text")
        say(console, str(data["text"]))
    elif data.get("generated"):
        say(console, f"  tokens: {' '.join(str(token) for token in data['generated'][:16])}", style="dim")
    say(console, f"  output sha256 {data['output_sha256']}", style="dim")
