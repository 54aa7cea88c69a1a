"""The summary of a calibration, for a terminal: how far the table was from what each operation asked for here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from memfit.report.terminal import name_files, say, section, show, table
from memfit.report.words import op_word


def draw_calibration(console: Console, found: Mapping[str, Any]) -> None:
    """Print what `calibrate` found: ``ops`` [{``op``, ``worst_error`` (share), ``calls``}], ``refitted``, ``path``."""
    rows = found.get("ops") or []
    refitted = found.get("refitted") or []
    worst = max((row["worst_error"] for row in rows), default=0.0)
    say(
        console,
        f"{len(rows)} operations measured, worst error {worst:.1%} before refitting, {len(refitted)} refitted",
        style="bold",
    )
    if rows:
        section(console, "Bytes inside operations, projected against measured")
        drawn = table("", "calls", "worst error")
        for row in sorted(rows, key=lambda row: (-row["worst_error"], row["op"])):
            mark = ", refitted" if row["op"] in refitted else ""
            drawn.add_row(Text(op_word(row["op"])), str(len(row["calls"])), f"{row['worst_error']:.1%}{mark}")
        show(console, drawn)
    name_files(console, [found["path"]] if found.get("path") else [])
