"""Fragmentation of one trace under all policies as one picture (PNG) that a newcomer understands.

On top a bar for each policy when it holds most: bytes in use, lost to rounding, free; a line marks what the program needs
at its peak. Below, for each policy, the whole run on one scale. Free bytes below the program's own peak are pale, for it
will need them again; what is reserved above is lost::

    torch       [######## in use ########|r|~~~~ holes ~~~~]        torch          bfc            buddy
    best fit    [######## in use ########|r|~~]                     /-~~~\\ ~~      /--~~~~~~      /-~~\\~
                                        ^ what the program needs    events ->

Draws, computes nothing but places. Needs matplotlib (extra ``picture``).
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from memfit.report.picture_frame import GROUND, INK, SOFT, check_matplotlib
from memfit.report.replay_summary import PolicyRow, ReplayReport
from memfit.units import format_bytes

IN_USE, ROUNDING, HOLES, KEPT = "#3a6ea5", "#e2b04a", "#d8664a", "#e8d9cf"
COLUMNS = 4


def replay_picture(report: ReplayReport) -> bytes:
    """The picture of a report, as PNG.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = sorted(report.policies, key=lambda row: (row.peak_reserved, row.smallest_capacity))
    lines = -(-len(rows) // COLUMNS)
    bars_height, line_height, head = 0.34 * len(rows) + 0.75, 1.72, 1.35
    height = head + bars_height + lines * line_height + 0.62
    figure = Figure(figsize=(12.5, height), facecolor=GROUND)
    FigureCanvasAgg(figure)
    unit, name = _unit(max(row.peak_reserved for row in rows))
    _head(figure, report, height)
    top = 1 - head / height
    bars = figure.add_axes((0.145, top - (bars_height - 0.55) / height, 0.70, (bars_height - 0.55) / height))
    _bars(bars, report, rows, unit, name)
    below = top - (bars_height + 0.30) / height
    figure.text(0.02, below, "The whole run, from start to end", fontsize=12.5, weight="bold", color=INK)
    _curves(figure, report, rows, unit, name, below, line_height / height)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130, facecolor=GROUND, metadata={"Software": "memfit"})
    return out.getvalue()


def _head(figure: Any, report: ReplayReport, height: float) -> None:
    worst = max(report.policies, key=lambda row: row.fragmentation)
    figure.text(0.02, 1 - 0.36 / height, "One program, the same requests, and what each allocator takes for them",
                fontsize=17, weight="bold", color=INK)  # fmt: skip
    figure.text(
        0.02, 1 - 0.66 / height,
        f"{_short(report.target)}: {report.events:,} events. At its peak the program uses {format_bytes(report.peak_live)}; "
        f"whatever is reserved above that is fragmentation, up to {worst.fragmentation:.0%} with {worst.key}.",
        fontsize=10.5, color=SOFT,
    )  # fmt: skip
    from matplotlib.patches import Patch

    figure.legend(
        handles=[Patch(color=IN_USE, label="in use by the program"), Patch(color=ROUNDING, label="lost to rounding up"),
                 Patch(color=HOLES, label="reserved beyond need, free in holes"),
                 Patch(color=KEPT, label="kept from one peak to the next")],
        loc="upper left", bbox_to_anchor=(0.015, 1 - 0.78 / height), ncol=4, frameon=False, fontsize=10.5,
        handlelength=1.1, handleheight=1.0, labelcolor=INK, columnspacing=1.8,
    )  # fmt: skip


def _bars(axes: Any, report: ReplayReport, rows: list[PolicyRow], unit: int, name: str) -> None:
    place = np.arange(len(rows))[::-1]
    in_use = np.array([row.at_peak[0] for row in rows]) / unit
    allocated = np.array([row.at_peak[1] for row in rows]) / unit
    reserved = np.array([row.at_peak[2] for row in rows]) / unit
    axes.barh(place, in_use, color=IN_USE, height=0.72)
    axes.barh(place, allocated - in_use, left=in_use, color=ROUNDING, height=0.72)
    kept = np.maximum(np.minimum(reserved, report.peak_live / unit), allocated)
    axes.barh(place, kept - allocated, left=allocated, color=KEPT, height=0.72)
    axes.barh(place, reserved - kept, left=kept, color=HOLES, height=0.72)
    axes.axvline(report.peak_live / unit, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
    axes.text(report.peak_live / unit, len(rows) - 0.42, "what the program needs", ha="center", va="bottom", fontsize=9,
              color=INK)  # fmt: skip
    for at, row, end in zip(place, rows, reserved, strict=True):
        axes.text(end + reserved.max() * 0.008, at, f"{format_bytes(row.peak_reserved)}  ({row.fragmentation:.1%} lost)",
                  va="center", fontsize=9.5, color=INK)  # fmt: skip
    axes.set_yticks(place, [row.key for row in rows], fontsize=10.5, color=INK)
    axes.set_ylim(-0.55, len(rows) - 0.45)
    axes.set_xlim(0, reserved.max() * 1.02)
    axes.set_xlabel(f"{name} when the allocator holds most", fontsize=9.5, color=SOFT)
    _plain(axes)


def _curves(
    figure: Any, report: ReplayReport, rows: list[PolicyRow], unit: int, name: str, top: float, step: float
) -> None:
    highest = max(row.peak_reserved for row in rows) / unit
    width = 0.93 / COLUMNS
    for number, row in enumerate(rows):
        line, column = divmod(number, COLUMNS)
        axes = figure.add_axes(
            (0.052 + column * width, top - (line + 1) * step + 0.03 * step, width - 0.022, 0.66 * step)
        )
        x = np.append(row.curve.event, report.events)
        live, allocated, reserved = (np.append(column, column[-1]) / unit for column in
                                     (row.curve.live, row.curve.allocated, row.curve.reserved))  # fmt: skip
        allocated, reserved = np.maximum(allocated, live), np.maximum(reserved, allocated)
        need = report.peak_live / unit
        axes.fill_between(x, 0, reserved, step="post", color=HOLES, linewidth=0)
        axes.fill_between(x, 0, np.minimum(reserved, need), step="post", color=KEPT, linewidth=0)
        axes.axhline(need, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
        axes.fill_between(x, 0, allocated, step="post", color=ROUNDING, linewidth=0)
        axes.fill_between(x, 0, live, step="post", color=IN_USE, linewidth=0)
        axes.set_title(f"{row.key}: {row.fragmentation:.1%} lost", fontsize=10, color=INK, loc="left", pad=3)
        axes.set_xlim(0, max(report.events, 1))
        axes.set_ylim(0, highest * 1.03)
        axes.tick_params(labelsize=8, colors=SOFT)
        axes.locator_params(axis="y", nbins=4)
        axes.set_xticks([0, report.events], ["start", "end"] if line == (len(rows) - 1) // COLUMNS else ["", ""])
        if column:
            axes.set_yticklabels([])
        else:
            axes.set_ylabel(name, fontsize=8.5, color=SOFT)
        _plain(axes)


def _plain(axes: Any) -> None:
    axes.set_facecolor(GROUND)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#cfcac0")
    axes.tick_params(colors=SOFT, length=3)


def _unit(most: int) -> tuple[int, str]:
    for power, name in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if most >= 1 << power:
            return 1 << power, name
    return 1, "bytes"


def _short(target: str) -> str:
    """The file's name; dollar signs would start mathematics."""
    target = target.replace("\\", "/").rsplit("/", 1)[-1]
    text = target if len(target) <= 60 else "…" + target[-59:]
    return text.replace("$", r"\$")
