"""The miss-ratio curve as one picture (PNG): share of the accesses that miss, by memory, a line for each policy.

Draws, computes nothing but places. Needs matplotlib (extra ``picture``).
"""

from __future__ import annotations

import io
import textwrap
from typing import Any

from memfit.report.paging_summary import STYLES, PagingReport, drawing_order, on_one_line, paging_headline
from memfit.report.picture_frame import GROUND, INK, SOFT, check_matplotlib
from memfit.units import format_bytes


def paging_picture(report: PagingReport) -> bytes:
    """The picture of a report that has curves, as PNG.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 6.8), facecolor=GROUND)
    FigureCanvasAgg(figure)
    name = report.target.replace("\\", "/").rsplit("/", 1)[-1][-60:].replace("$", r"\$")
    figure.text(0.07, 0.945, "What misses, by how much memory there is", fontsize=16, weight="bold", color=INK)
    told = f"{name}: {report.accesses:,} accesses. {paging_headline(report)}. {on_one_line(report.curves)}"
    words = textwrap.fill(told, 125)
    figure.text(0.07, 0.925, words, fontsize=10, color=SOFT, va="top", linespacing=1.4)
    axes = figure.add_axes((0.07, 0.105, 0.78, 0.70))
    for curve in drawing_order(report.curves):
        colour, dashes = STYLES.get(curve.name, ("#888888", ""))
        style = (0, tuple(float(part) / 2 for part in dashes.split())) if dashes else "-"
        ratios = [100 * misses / report.accesses for misses in curve.misses]
        axes.plot(
            curve.capacity, ratios, color=colour, linestyle=style, label=curve.title, clip_on=False,
            linewidth=2.6 if curve.name == "opt" else 1.9,
        )  # fmt: skip
    room = min(report.capacity, report.pages)
    axes.axvline(room, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(room, 102.5, "the capacity asked for", ha="center", fontsize=9, color=INK)
    _axes(axes, report)
    drawn = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    titles = [curve.title for curve in report.curves]
    axes.legend([drawn[title] for title in titles], titles, loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False,
                fontsize=10.5, labelcolor=INK, handlelength=2.6)  # fmt: skip
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130, facecolor=GROUND, metadata={"Software": "memfit"})
    return out.getvalue()


def _axes(axes: Any, report: PagingReport) -> None:
    axes.set_xlim(0, max(report.pages, 1))
    axes.set_ylim(0, 101)
    axes.set_ylabel("misses, percent of the accesses", fontsize=10, color=SOFT)
    axes.set_xlabel("memory" if report.page_bytes else "pages in memory", fontsize=10, color=SOFT)
    if report.page_bytes:
        ticks = [report.pages * part / 4 for part in range(5)]
        axes.set_xticks(ticks, [format_bytes(tick * report.page_bytes) for tick in ticks])
    axes.grid(axis="y", color="#e6e1d8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_facecolor(GROUND)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#cfcac0")
    axes.tick_params(colors=SOFT, length=3)
