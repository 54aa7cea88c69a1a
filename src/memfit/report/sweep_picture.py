"""A sweep as one picture (PNG): a field for each combination, or a bar for each value where one name varies.

Draws, computes nothing but places. Needs matplotlib (extra ``picture``).
"""

from __future__ import annotations

import io
import textwrap
from typing import Any

from memfit.report.picture_frame import GROUND, INK, SOFT, check_matplotlib
from memfit.report.sweep_summary import SweepPoint, SweepReport
from memfit.units import format_bytes

YES, NO, NOTHING = "#3f9a62", "#cf5642", "#efebe4"
MOST = 40
"""Lines and columns with a text in every field; a larger grid is drawn by colour alone."""


def sweep_picture(report: SweepReport) -> bytes:
    """The picture of a report, as PNG.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = report.lines()
    bars = len(report.swept) == 1
    columns = 1 if bars else len(lines[0][1])
    rows = len(report.points) if bars else len(lines)
    width = 10.5 if bars else min(30.0, max(8.0, 2.2 + 1.15 * columns))
    height = 1.7 + min(26.0, (0.42 if bars else 0.52) * rows) + 0.4
    figure = Figure(figsize=(width, height), facecolor=GROUND)
    FigureCanvasAgg(figure)
    figure.text(0.35 / width, 1 - 0.42 / height, "What fits", fontsize=16, weight="bold", color=INK)
    name = report.target.replace("\\", "/").rsplit("/", 1)[-1][-60:].replace("$", r"\$")
    words = textwrap.fill(f"{name}: {report.headline}", int(width * 11))
    figure.text(0.35 / width, 1 - 0.55 / height, words, fontsize=10, color=SOFT, va="top", linespacing=1.4)
    left = 1.5 if bars else 0.6 + 0.13 * max(len(_label(report, values)) for values, _ in lines)
    axes = figure.add_axes(
        (left / width, 0.35 / height, (width - left - (1.9 if bars else 0.35)) / width, (height - 1.95) / height)
    )
    (_bars if bars else _grid)(axes, report)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, facecolor=GROUND, metadata={"Software": "memfit"})
    return out.getvalue()


def _label(report: SweepReport, values: tuple[Any, ...]) -> str:
    return ", ".join(f"{name}={value}" for name, value in zip(report.swept, values, strict=False))[-40:].replace(
        "$", r"\$"
    )


def _colour(report: SweepReport, point: SweepPoint) -> tuple[str, float]:
    if point.error:
        return NOTHING, 1.0
    share = report.need(point) / max(report.capacity, 1)
    return (YES, 0.15 + 0.6 * min(1.0, share)) if point.fits else (NO, 0.45 + 0.4 * min(1.0, max(0.0, share - 1) / 3))


def _grid(axes: Any, report: SweepReport) -> None:
    from matplotlib.patches import Rectangle

    lines = report.lines()
    columns = len(lines[0][1])
    texts = columns <= MOST and len(lines) <= MOST
    for row, (_, points) in enumerate(lines):
        for column, point in enumerate(points):
            colour, alpha = _colour(report, point)
            edge = 0.04 if texts else 0.0
            axes.add_patch(
                Rectangle(
                    (column + edge, row + edge), 1 - 2 * edge, 1 - 2 * edge, color=colour, alpha=alpha, linewidth=0
                )
            )
            if texts:
                text = (
                    "cannot"
                    if point.error
                    else format_bytes(report.need(point)) + ("" if point.fits else "\ndoes not fit")
                )
                axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=8.5, color=INK)
    axes.set_xlim(0, columns)
    axes.set_ylim(len(lines), 0)
    across = list(report.swept)[-1]
    every = max(1, columns // MOST)
    values = [str(value)[:12].replace("$", r"\$") for value in report.swept[across]]
    axes.set_xticks([at + 0.5 for at in range(0, columns, every)], values[::every])
    every = max(1, len(lines) // MOST)
    labels = [_label(report, values) for values, _ in lines]
    axes.set_yticks([at + 0.5 for at in range(0, len(lines), every)], labels[::every])
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(across.replace("$", r"\$"), fontsize=10, color=SOFT)
    _plain(axes)


def _bars(axes: Any, report: SweepReport) -> None:
    (name,) = report.swept
    plain = {"facecolor": GROUND, "edgecolor": "none", "pad": 1.5}  # the line of the capacity does not cross words
    most = max(report.need(point) for point in report.points)
    far = max(most, report.capacity if report.capacity <= 4 * most else 0)
    for row, point in enumerate(report.points):
        text = "cannot" if point.error else format_bytes(report.need(point)) + ("" if point.fits else ", does not fit")
        axes.barh(row, report.need(point), height=0.7, color=YES if point.fits else NO)
        axes.text(report.need(point) + far * 0.01, row, text, va="center", fontsize=9, color=INK, bbox=plain)
    if report.capacity <= far:
        axes.axvline(report.capacity, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(
            report.capacity, -0.75, f"capacity {format_bytes(report.capacity)}", ha="center", fontsize=9, color=INK
        )
    axes.set_xlim(0, max(far, 1))
    axes.set_ylim(len(report.points) - 0.4, -0.6)
    axes.set_yticks(range(len(report.points)), [_label(report, (point.values[name],)) for point in report.points])
    axes.set_xticks([])
    _plain(axes)


def _plain(axes: Any) -> None:
    axes.set_facecolor(GROUND)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(colors=SOFT, length=0)
