"""The picture of a plan as PNG, for a paper, an issue or a chat: what the page shows, without a browser.

Drawn by matplotlib (the extra ``picture``), which is imported here only. Time to the right, addresses upwards; the load
above; peak, lower bound and capacity as lines. Of one memory or several: one panel each. Cost: about a second, and 20 us
a rectangle.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

from memfit.planners.load import Load
from memfit.report.picture_frame import INK, SOFT, check_matplotlib
from memfit.report.plan_scene import Panel, Scene, scene_of
from memfit.report.plan_summary import PlanReport
from memfit.report.terminal_plan import gap_word, plan_headline
from memfit.report.words import keep_end
from memfit.units import format_bytes

WIDTH, PIXELS_PER_INCH = 11.0, 140
_GOOD, _BAD, _MERGED = "#2f7d4f", "#b3372b", "#9c9c9c"
_NAMED = 40


def plan_picture(report: PlanReport) -> bytes:
    """PNG bytes of a plan's picture.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scene = scene_of(report)
    count = max(len(scene.panels), 1)
    figure = Figure(figsize=(WIDTH, 2.6 + 4.6 * count), dpi=PIXELS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(count + 1, 1, sharex=True, squeeze=False, height_ratios=[1.2, *[4.0] * count])[:, 0]
    figure.suptitle(_escaped(plan_headline(report)), x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    _draw_load(axes[0], scene.load, report, scene)
    for axis, panel in zip(axes[1:], scene.panels, strict=False):
        _draw_panel(axis, panel, scene, report)
    word = (
        "instant (the steps of the program, in order)"
        if "op_at" in report.problem.meta
        else "time (instants of the table)"
    )
    axes[-1].set_xlabel(word, color=SOFT, fontsize=9)
    axes[-1].set_xlim(scene.begin, max(scene.end, scene.begin + 1))
    _draw_legend(figure, scene, report)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _draw_load(axis: Any, load: Load, report: PlanReport, scene: Scene) -> None:
    axis.fill_between(load.times, load.nbytes, step="post", color="#3f6fb5", alpha=0.25, linewidth=0)
    axis.step(load.times, load.nbytes, where="post", color="#3f6fb5", linewidth=1)
    axis.axvline(report.instant, color=_GOOD, linewidth=0.9, linestyle=(0, (3, 3)))
    axis.set_ylim(0, max(load.peak, 1) * 1.08)
    _dress(axis, f"load: bytes alive at each instant, wherever they lie; at most {format_bytes(load.peak)}", 3)


def _draw_panel(axis: Any, panel: Panel, scene: Scene, report: PlanReport) -> None:
    from matplotlib.collections import PolyCollection

    if len(panel.merged):
        left, right, low, high = panel.merged.T
        axis.add_collection(PolyCollection(_corners(left, right, low, high), facecolor=_MERGED, edgecolor="none"))
    colours = np.array([key.light for key in scene.keys], dtype=object)[panel.key] if len(panel.key) else "none"
    edge = 0.4 if len(panel.left) < 4000 else 0.0
    boxes = _corners(panel.left, panel.right, panel.low, panel.high)
    axis.add_collection(PolyCollection(boxes, facecolors=colours, edgecolors="white", linewidths=edge))
    top = max(panel.peak, 1)
    if panel.capacity is not None and panel.capacity < 1.5 * panel.peak:
        top = max(top, panel.capacity)
    axis.set_ylim(0, top * 1.06)
    for bytes_at, ink, style, word in _marks(panel, scene, report):
        axis.axhline(bytes_at, color=ink, linewidth=1.6, linestyle=style)
        box = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.5}
        left = ink == _BAD  # the capacity is named at the other end: it often is the peak
        axis.text(
            0.005 if left else 0.995, bytes_at, word, color=ink, fontsize=8.5, ha="left" if left else "right", va="bottom",
            bbox=box,
            transform=axis.get_yaxis_transform(),
        )  # fmt: skip
    _name_largest(axis, panel, scene, report, top)
    name = f"memory {panel.name}: " if len(scene.panels) > 1 else ""
    shared = len(report.problem.in_place) + len(report.problem.same)
    overlap = f"; rectangles overlap only where one may take over another ({shared} pairs)" if shared else ""
    _dress(axis, f"{name}where every buffer lies (offset of its bytes){overlap or '; no two rectangles overlap'}", 6)


def _marks(panel: Panel, scene: Scene, report: PlanReport) -> list[tuple[int, str, Any, str]]:
    """The lines of a panel: bytes, colour, style, words."""
    one = len(scene.panels) == 1
    peak = format_bytes(panel.peak)
    marks: list[tuple[int, str, Any, str]] = []
    if one and report.best.optimal:
        marks.append((panel.peak, _GOOD, "-", f"peak = lower bound {peak} (proved optimal)"))
    else:
        marks.append((panel.peak, INK, "-", f"peak {peak}"))
        if one and report.best.gap > 0.03:
            marks.append((report.bound, _GOOD, "--", f"lower bound {format_bytes(report.bound)}"))
        elif one:
            lower = f", {gap_word(report.best.gap)} above the lower bound"
            marks[0] = (panel.peak, INK, "-", f"peak {peak}{lower}")
    if panel.capacity is not None and panel.capacity < 1.5 * panel.peak:
        marks.append((panel.capacity, _BAD, ":", f"capacity {format_bytes(panel.capacity)}"))
    return marks


def _name_largest(axis: Any, panel: Panel, scene: Scene, report: PlanReport, top: int) -> None:
    """Write names into the rectangles with room for one."""
    span = max(scene.end - scene.begin, 1)
    width, height = (panel.right - panel.left) / span, (panel.high - panel.low) / top
    room = np.where((height > 0.03) & (width > 0.04), width * height, 0)
    for i in np.argsort(-room, kind="stable")[:_NAMED].tolist():
        if room[i] <= 0:
            break
        buffer = int(panel.buffer[i])
        name = (report.problem.labels[buffer] if report.problem.labels else "") or report.problem.ids[buffer]
        letters = int(width[i] * 130)
        text = keep_end(name, max(letters, 2))
        middle = (panel.left[i] + panel.right[i]) / 2, (panel.low[i] + panel.high[i]) / 2
        axis.text(*middle, _escaped(text), fontsize=7, ha="center", va="center", color="white", clip_on=True)


def _corners(left: Any, right: Any, low: Any, high: Any) -> Any:
    return np.stack(
        [np.stack([left, low], 1), np.stack([right, low], 1), np.stack([right, high], 1), np.stack([left, high], 1)], 1
    )


def _dress(axis: Any, title: str, ticks: int) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter

    axis.set_title(_escaped(title), loc="left", fontsize=9, color=SOFT)
    top = axis.get_ylim()[1]
    step = 2 ** max(math.ceil(math.log2(max(top / ticks, 1))), 0)
    axis.yaxis.set_major_locator(FixedLocator(np.arange(0, top, step).tolist()))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda nbytes, _: format_bytes(nbytes)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda instant, _: f"{instant:,.0f}"))
    axis.tick_params(labelsize=8, colors=SOFT)
    axis.grid(axis="y", color="#e0ddd6", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _draw_legend(figure: Any, scene: Scene, report: PlanReport) -> None:
    from matplotlib.patches import Patch

    used = {int(k) for panel in scene.panels for k in np.unique(panel.key).tolist()}
    patches = [Patch(facecolor=key.light, label=key.word) for index, key in enumerate(scene.keys) if index in used]
    small = sum(panel.merged_count for panel in scene.panels)
    if small:
        patches.append(Patch(facecolor=_MERGED, label=f"{small:,} buffers too small to draw one by one"))
    figure.legend(
        handles=patches, loc="outside lower left", ncols=6, fontsize=8, frameon=False,
        title=f"{len(report.problem):,} buffers; colour: {scene.coloured_by}", title_fontsize=8, alignment="left",
    )  # fmt: skip


def _escaped(text: str) -> str:
    """Text that matplotlib does not read as a formula."""
    return text.replace("$", r"\$")
