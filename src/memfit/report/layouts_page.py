"""The comparison of memory layouts as one self-contained page: bars of where bytes go, and each layout's memory drawn.

The memory strips show one moment, that of most live bytes: each buffer in its place, holes white, rounding hatched, all
at one scale. No script, nothing fetched; light and dark follow the reader's system. Names that a user chose are escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from memfit.allocators.layouts import Comparison, Region
from memfit.report.layouts_summary import LayoutsReport, layouts_headline, total
from memfit.report.page_frame import header, noted, page, section
from memfit.units import format_bytes, format_seconds

WIDTH, BAR, LABEL, RIGHT = 1000, 34, 210, 110
STRIP, GAP = 46, 46
SMALLEST = 0.35  # of a pixel: what is thinner is drawn together with its neighbours
COLOURS = ("#3a6ea5", "#1d9a6c", "#5f6f7d", "#8a63b8", "#d45b9c", "#2ba3b8", "#a8642f", "#7a9a2e")
KINDS = (("live", "live: what the program holds"), ("inside", "inside: rounded up, in what buffers hold"),
         ("between", "between: reserved and in nobody's use"), ("meta", "metadata: bookkeeping, beside it"))  # fmt: skip
_STYLE = """
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--ink); font-size: 13px; }
svg .soft, .axis { fill: var(--soft); font-size: 11.5px; } .grid { stroke: var(--line); }
.bars, .strips { min-width: 640px; }
:root { --live: #3a6ea5; --inside: #e2a23a; --between: #d8664a; --meta: #8c9198; --empty: #f3efe8; }
@media (prefers-color-scheme: dark) { :root { --live: #5a8fc8; --empty: #2a2d31; } }
.live { fill: var(--live); } .inside { fill: var(--inside); } .between { fill: var(--between); } .meta { fill: var(--meta); }
.empty { fill: var(--empty); stroke: var(--between); stroke-dasharray: 3 3; }
.mark { stroke: var(--ink); stroke-dasharray: 4 3; }
.key { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0 0 10px; font-size: 14px; }
.key svg { width: 14px; height: 12px; display: inline-block; margin-right: 7px; vertical-align: middle; }
"""


def layouts_page(report: LayoutsReport) -> str:
    """The page of a comparison, as HTML text."""
    found = report.comparison
    facts = (
        f"{escape(report.target)}: {found.blocks:,} buffers in {found.events:,} events, {escape(report.kind)}; laid out in "
        f"{format_seconds(report.seconds)} of CPU time"
    )
    parts = [
        header(layouts_headline(report), facts),
        section("Where the bytes go", _bars(found)),
        section("The memory itself, when most is live", _strips(report)),
        section("Figures", _table(found)),
        section("The four ways", _ways(found)),
        noted(report.notes),
    ]
    return page("layouts", report.target, parts, _STYLE, "Every figure is projected.")


def _bars(found: Comparison) -> str:
    scale = (WIDTH - LABEL - RIGHT) / max(max(total(layout) for layout in found.layouts), 1)
    height = BAR * len(found.layouts) + 26
    key = "".join(
        f'<span><svg viewBox="0 0 14 12"><rect class="{kind}" width="14" height="12"/></svg>{text}</span>'
        for kind, text in KINDS
    )
    out = [
        f'<div class="key">{key}</div><div class="wide"><svg class="bars" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="Bytes of each layout: live, inside, between, metadata">'
    ]
    for number, layout in enumerate(found.layouts):
        y, x = BAR * number + 4, float(LABEL)
        out.append(f'<text x="{LABEL - 10}" y="{y + 17}" text-anchor="end">{escape(layout.title)}</text>')
        for kind, nbytes in (("live", layout.live), ("inside", layout.inside), ("between", layout.between),
                             ("meta", layout.metadata)):  # fmt: skip
            if nbytes:
                out.append(f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{nbytes * scale:.2f}" height="{BAR - 9}">'
                           f"<title>{escape(layout.title)}: {kind} {format_bytes(nbytes)}</title></rect>")  # fmt: skip
            x += nbytes * scale
        out.append(f'<text x="{x + 8:.1f}" y="{y + 17}">{format_bytes(total(layout))}</text>')
    x = LABEL + found.peak_live * scale
    bottom = BAR * len(found.layouts) + 2
    out.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom}"/>')
    words = "live at once: no layout can take less"
    out.append(f'<text class="axis" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{words}</text>')
    return "".join(out) + "</svg></div>"


def _strips(report: LayoutsReport) -> str:
    found = report.comparison
    top = max(max(layout.reserved, layout.regions[-1].high if layout.regions else 0) for layout in found.layouts)
    scale = WIDTH / max(top, 1)
    height = (STRIP + GAP) * len(found.layouts)
    out = [f'<div class="wide"><svg class="strips" viewBox="0 0 {WIDTH} {height}" role="img" '
           'aria-label="The memory of each layout, every buffer in its place">']  # fmt: skip
    for number, layout in enumerate(found.layouts):
        y = (STRIP + GAP) * number + 22
        out.append(f'<text x="0" y="{y - 7}">{escape(layout.title)}: {format_bytes(layout.reserved)} reserved</text>')
        out.append(f'<rect class="empty" x="0" y="{y}" width="{layout.reserved * scale:.2f}" height="{STRIP}"/>')
        for region, count in _drawn(layout.regions, 1 / scale):
            out.append(_region(region, count, y, scale, report.labels))
        out.append(f'<text class="axis" x="0" y="{y + STRIP + 14}">address 0</text>')
        out.append(f'<text class="axis" x="{min(layout.reserved * scale, WIDTH):.1f}" y="{y + STRIP + 14}" '
                   f'text-anchor="end">{format_bytes(layout.reserved)}</text>')  # fmt: skip
    return "".join(out) + (
        "</svg></div><p class='soft'>One moment, that of most live bytes, at one scale. A coloured stretch is a buffer (a "
        "buffer has the same colour in each layout; in pages it may lie in several places), its orange end what rounding "
        "added; the dashed frame without colour is reserved and holds nothing.</p>"
    )


def _drawn(regions: Sequence[Region], pixel: float) -> list[tuple[Region, int]]:
    """Regions that can be seen; neighbours too thin for that are joined, with how many they are."""
    out: list[tuple[Region, int]] = []
    for region in regions:
        last = out[-1] if out else None
        if last is not None and region.low == last[0].high and (
            region.block == last[0].block or min(region.high - region.low, last[0].high - last[0].low) < SMALLEST * pixel
        ):  # fmt: skip
            joined = Region(last[0].low, region.high, last[0].used + region.used, last[0].block)
            out[-1] = (joined, last[1] + (region.block != last[0].block))
        else:
            out.append((region, 1))
    return out


def _region(region: Region, count: int, y: int, scale: float, labels: Sequence[str]) -> str:
    x, width = region.low * scale, (region.high - region.low) * scale
    lost = (region.high - region.low - region.used) * scale
    name = labels[region.block] if region.block < len(labels) and labels[region.block] else f"buffer {region.block}"
    many = f" and {count - 1} more" if count > 1 else ""
    text = f"{name}{many}: {format_bytes(region.used)} in [{region.low}, {region.high})"
    colour = COLOURS[region.block % len(COLOURS)]
    drawn = (f'<g><title>{escape(text)}</title><rect fill="{colour}" x="{x:.2f}" y="{y}" width="{max(width - lost, 0.2):.2f}" '
             f'height="{STRIP}"/>')  # fmt: skip
    if lost > 0.05:
        drawn += f'<rect class="inside" x="{x + width - lost:.2f}" y="{y}" width="{lost:.2f}" height="{STRIP}"/>'
    return drawn + "</g>"


def _table(found: Comparison) -> str:
    headers = ("layout", "reserved", "live", "inside", "between", "lost", "metadata")
    head = "".join(f"<th{'' if i == 0 else ' class=number'}>{text}</th>" for i, text in enumerate(headers))
    rows = []
    for layout in found.layouts:
        cells = (
            layout.title, format_bytes(layout.reserved), format_bytes(layout.live), format_bytes(layout.inside),
            format_bytes(layout.between), f"{100 * layout.fragmentation:.2f} %", format_bytes(layout.metadata),
        )  # fmt: skip
        rows.append(
            "".join(f"<td{'' if i == 0 else ' class=number'}>{escape(cell)}</td>" for i, cell in enumerate(cells))
        )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _ways(found: Comparison) -> str:
    return (
        "<ul>" + "".join(f"<li><b>{escape(way.title)}</b>: {escape(way.how)}</li>" for way in found.layouts) + "</ul>"
    )
