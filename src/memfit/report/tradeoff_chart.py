"""Quality against bytes as a chart, for a page (SVG) and as a picture (PNG): points by series, the chosen one marked.

Both axes are logarithmic: errors span decades, and a factor of bytes is what one pays. Draws, computes nothing but
places. The picture needs matplotlib (extra ``picture``).
"""

from __future__ import annotations

import io
import itertools
import math
import textwrap
from collections.abc import Sequence
from html import escape
from typing import Any

from memfit.report.compression_summary import CompressionReport, TradePoint
from memfit.report.picture_frame import GROUND, INK, SOFT, check_matplotlib
from memfit.report.terminal_compression import compression_headline
from memfit.units import format_bytes

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1000, 420, 86, 130, 14, 52
SERIES = {
    "bits": ("one format for all layers", "#3f6fb5"), "per layer": ("formats per layer, at six budgets", "#3f9a62"),
    "sparsity": ("zeros (2:4, bitmap)", "#dd9a2b"), "chosen": ("written", "#cf5642"),
}  # fmt: skip
STYLE = """
.trade { min-width: 640px; } .trade text { font-size: 12px; paint-order: stroke; stroke: var(--panel); stroke-width: 3px; }
.trade .axis { fill: var(--soft); } .trade .grid { stroke: var(--line); }
.key { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0 0 10px; font-size: 14px; }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 50%; margin-right: 7px; }
"""


def chart(report: CompressionReport) -> str:
    """The chart and the table of its points, as HTML."""
    points = [point for point in report.tradeoff if point.error > 0]
    if not points:
        return ""
    across, up = _scales(points)
    key = "".join(
        f'<span><i style="background:{colour}"></i>{escape(title)}</span>'
        for name, (title, colour) in SERIES.items()
        if any(point.series == name for point in points)
    )
    out = [
        f'<div class="key">{key}</div><div class="wide"><svg class="trade" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="Output error of each form by the bytes of its file">'
    ]
    for error in _decades([point.error for point in points]):
        y = up(error)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="axis" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_percent(error)}</text>')
    for nbytes in _ticks([point.file_bytes for point in points]):
        x = across(nbytes)
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        out.append(
            f'<text class="axis" x="{x:.1f}" y="{HEIGHT - 32}" text-anchor="middle">{format_bytes(round(nbytes))}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text class="axis" x="{middle:.0f}" y="{HEIGHT - 10}" text-anchor="middle">bytes of the file</text>')
    line = sorted((p for p in points if p.series == "per layer"), key=lambda point: point.file_bytes)
    if line:
        path = "L".join(f"{across(p.file_bytes):.1f} {up(p.error):.1f}" for p in line)
        out.append(f'<path d="M{path}" fill="none" stroke="{SERIES["per layer"][1]}" stroke-width="2"/>')
    crowded = _crowded(points)
    for point in points:
        x, y = across(point.file_bytes), up(point.error)
        size = 7 if point.series == "chosen" else 4.5
        hollow = f'fill="none" stroke="{SERIES["chosen"][1]}" stroke-width="3"'
        fill = hollow if point.series == "chosen" else f'fill="{SERIES[point.series][1]}"'
        out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" {fill}/>')
        if point.series in ("bits", "sparsity"):
            lower = 17 if point in crowded else -5
            out.append(f'<text x="{x + 9:.1f}" y="{y + lower:.1f}">{escape(point.name)}</text>')
    rows = "".join(
        f"<tr><td>{escape(SERIES[p.series][0])}</td><td>{escape(p.name)}</td><td class=number>{format_bytes(p.file_bytes)}</td>"
        f"<td class=number>{_percent(p.error)}</td>{'' if p.metric is None else f'<td class=number>{p.metric:.6g}</td>'}</tr>"
        for p in sorted(report.tradeoff, key=lambda point: point.file_bytes)
    )
    metric = "<th class=number>metric</th>" if any(p.metric is not None for p in points) else ""
    return (
        f'{"".join(out)}</svg></div><p class="soft">Error: of the whole model\'s output on the calibration batch, over the '
        "output's norm, measured; the lower left is better. Bytes: projected, of the written one measured.</p>"
        f'<div class="wide"><table><tr><th></th><th></th><th class=number>file</th><th class=number>error</th>{metric}</tr>'
        f"{rows}</table></div>"
    )


def tradeoff_picture(report: CompressionReport) -> bytes:
    """The chart as PNG.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    points = [point for point in report.tradeoff if point.error > 0]
    figure = Figure(figsize=(11.0, 6.4), facecolor=GROUND)
    FigureCanvasAgg(figure)
    figure.text(0.07, 0.94, "Quality against bytes", fontsize=16, weight="bold", color=INK)
    name = report.model.replace("\\", "/").rsplit("/", 1)[-1][-60:].replace("$", r"\$")
    words = textwrap.fill(f"{name}: {compression_headline(report)}", 118)
    figure.text(0.07, 0.92, words, fontsize=10, color=SOFT, va="top", linespacing=1.4)
    axes = figure.add_axes((0.09, 0.11, 0.86, 0.70))
    crowded = _crowded(points)
    for series, (title, colour) in SERIES.items():
        found = sorted((p for p in points if p.series == series), key=lambda point: point.file_bytes)
        if not found:
            continue
        style: dict[str, Any] = {"color": colour, "label": title, "linestyle": "-" if series == "per layer" else ""}
        if series == "chosen":
            style |= {"markersize": 13, "markerfacecolor": "none", "markeredgewidth": 2.5}
        axes.plot([p.file_bytes for p in found], [p.error for p in found], marker="o", zorder=3, **style)
        for p in found if series in ("bits", "sparsity") else ():
            place = (7, -13) if p in crowded else (7, 5)
            axes.annotate(p.name, (p.file_bytes, p.error), place, textcoords="offset points", fontsize=9, color=INK)
    if points:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(_ticks([p.file_bytes for p in points]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_bytes(round(value))))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _percent(value)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.legend(frameon=False, fontsize=10, labelcolor=INK)
    axes.set_xlabel("bytes of the file, projected", fontsize=10, color=SOFT)
    axes.set_ylabel("error of the output over its norm, measured", fontsize=10, color=SOFT)
    axes.grid(color="#e6e1d8", linewidth=0.8)
    axes.set_facecolor(GROUND)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=SOFT)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120, facecolor=GROUND, metadata={"Software": "memfit"})
    return out.getvalue()


def _scales(points: Sequence[TradePoint]) -> tuple[Any, Any]:
    x0, x1 = (f(math.log(p.file_bytes) for p in points) for f in (min, max))
    y0, y1 = (f(math.log(p.error) for p in points) for f in (min, max))
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    margin_x, margin_y = 0.04 * (x1 - x0) + 1e-6, 0.06 * (y1 - y0) + 1e-6

    def across(nbytes: float) -> float:
        return LEFT + wide * (math.log(nbytes) - x0 + margin_x) / (x1 - x0 + 2 * margin_x)

    def up(error: float) -> float:
        return TOP + high * (1 - (math.log(error) - y0 + margin_y) / (y1 - y0 + 2 * margin_y))

    return across, up


def _crowded(points: Sequence[TradePoint]) -> list[TradePoint]:
    """Points whose name goes below them, because that of their left neighbour reaches over them."""
    across, up = _scales(points)
    named = sorted((p for p in points if p.series in ("bits", "sparsity")), key=lambda p: p.file_bytes)
    found: list[TradePoint] = []
    for left, right in itertools.pairwise(named):
        near = across(right.file_bytes) - across(left.file_bytes) < 12 + 8 * len(left.name)
        if near and abs(up(right.error) - up(left.error)) < 18 and left not in found:
            found.append(right)
    return found


def _decades(errors: Sequence[float]) -> list[float]:
    low, high = math.floor(math.log10(min(errors))), math.ceil(math.log10(max(errors)))
    steps = (1, 3) if high - low < 4 else (1,)
    return [s * 10.0**e for e in range(low, high + 1) for s in steps if min(errors) <= s * 10.0**e <= max(errors)]


def _ticks(sizes: Sequence[int]) -> list[float]:
    low, high = min(sizes), max(sizes)
    return [low * (high / low) ** (part / 4) for part in range(5)] if high > low else [float(low)]


def _percent(error: float) -> str:
    return f"{100 * error:.3g} %"
