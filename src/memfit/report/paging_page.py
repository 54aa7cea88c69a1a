"""A paging simulation as one self-contained page: misses of each policy as bars, the miss-ratio curve in SVG, tables.

No script, nothing fetched; light and dark follow the reader's system. Draws, computes nothing but places. Names that a
user chose are escaped, never read as markup.
"""

from __future__ import annotations

from html import escape

from memfit.report.page_frame import header, noted, page, section
from memfit.report.paging_summary import STYLES, Curve, PagingReport, drawing_order, on_one_line, paging_headline
from memfit.units import format_bytes, format_seconds

WIDTH, BAR, LEFT, RIGHT = 1000, 28, 90, 190
HEIGHT, TOP, BOTTOM, MARGIN = 430, 24, 46, 58
_STYLE = """
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--ink); font-size: 13px; }
svg .axis { fill: var(--soft); font-size: 11.5px; } .grid { stroke: var(--line); }
.mark { stroke: var(--ink); stroke-dasharray: 4 3; }
.again { opacity: .85; } .first { fill: var(--first); } :root { --first: #d9d4ca; }
@media (prefers-color-scheme: dark) { :root { --first: #45494f; } }
.bars, .curve { min-width: 640px; } .line { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
.key { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0 0 10px; font-size: 14px; }
.key svg { width: 30px; height: 12px; display: inline-block; margin-right: 7px; vertical-align: middle; }
"""


def paging_page(report: PagingReport) -> str:
    """The page of a report, as HTML text."""
    of = f" of {format_bytes(report.page_bytes)}" if report.page_bytes else ""
    facts = (
        f"{escape(report.target)}: {report.accesses:,} accesses to {report.pages:,} pages{of}; simulated in "
        f"{format_seconds(report.seconds)} of CPU time"
    )
    parts = [
        header(paging_headline(report), facts),
        section(f"Misses with {report.size(report.capacity)} in memory", _bars(report)),
        section("Miss ratio at every capacity", _curve(report)) if report.curves else "",
        section("Policies", _table(report)),
        noted(report.notes),
    ]
    return page("paging", report.target, parts, _STYLE, "Misses are simulated.")


def _bars(report: PagingReport) -> str:
    scale = (WIDTH - LEFT - RIGHT) / max(report.accesses, 1)
    height = BAR * len(report.rows) + 4
    out = [
        f'<div class="wide"><svg class="bars" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Misses by policy">'
    ]
    for number, row in enumerate(report.rows):
        y = BAR * number + 3
        first, end = LEFT + report.pages * scale, LEFT + row.misses * scale
        colour = STYLES.get(row.name, ("#888888", ""))[0]
        out.append(
            f'<text x="{LEFT - 10}" y="{y + 16}" text-anchor="end">{escape(row.title)}</text>'
            f'<rect class="first" x="{LEFT}" y="{y}" width="{first - LEFT:.1f}" height="{BAR - 7}"/>'
            f'<rect class="again" fill="{colour}" x="{first:.1f}" y="{y}" width="{max(end - first, 0):.1f}" '
            f'height="{BAR - 7}"/>'
            f'<text x="{end + 8:.1f}" y="{y + 16}">{row.misses:,} ({100 - 100 * row.hit_rate:.1f} %)</text>'
        )
    out.append("</svg></div><p class='soft'>Grey: the first use of each page, which no policy avoids; colour: pages read "
               "again because they had left. In brackets: share of the accesses.</p>")  # fmt: skip
    return "".join(out)


def _curve(report: PagingReport) -> str:
    wide, high = WIDTH - MARGIN - 14, HEIGHT - TOP - BOTTOM

    def across(pages: float) -> float:
        return MARGIN + wide * pages / max(report.pages, 1)

    def up(ratio: float) -> float:
        return TOP + high * (1 - ratio)

    out = [
        f'<div class="wide"><svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="Miss ratio of each policy at each capacity">'
    ]
    for percent in range(0, 101, 20):
        y = up(percent / 100)
        out.append(f'<line class="grid" x1="{MARGIN}" x2="{WIDTH - 14}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="axis" x="{MARGIN - 8}" y="{y + 4:.1f}" text-anchor="end">{percent} %</text>')
    for part in range(5):
        pages = report.pages * part / 4
        text = format_bytes(pages * report.page_bytes) if report.page_bytes else f"{pages:,.0f}"
        anchor = "end" if part == 4 else "middle"
        out.append(f'<text class="axis" x="{across(pages):.1f}" y="{HEIGHT - 26}" text-anchor="{anchor}">{text}</text>')
    unit = "memory" if report.page_bytes else "pages in memory"
    out.append(f'<text class="axis" x="{MARGIN + wide / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{unit}</text>')
    for curve in drawing_order(report.curves):
        colour, dashes = STYLES.get(curve.name, ("#888888", ""))
        path = "L".join(
            f"{across(c):.1f} {up(m / report.accesses):.1f}" for c, m in zip(curve.capacity, curve.misses, strict=True)
        )
        out.append(f'<path class="line" stroke="{colour}" stroke-dasharray="{dashes}" d="M{path}"/>')
    x = across(min(report.capacity, report.pages))
    out.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{TOP + high}"/>')
    anchor = "end" if x > WIDTH - 120 else "middle"
    out.append(f'<text class="axis" x="{x:.1f}" y="{TOP - 10}" text-anchor="{anchor}">the capacity asked for</text>')
    return f'{_key(report.curves)}{"".join(out)}</svg></div><p class="soft">Share of the accesses that miss. {_how(report)}</p>'


def _key(curves: tuple[Curve, ...]) -> str:
    items = []
    for curve in curves:
        colour, dashes = STYLES.get(curve.name, ("#888888", ""))
        items.append(
            f'<span><svg viewBox="0 0 30 12"><path class="line" stroke="{colour}" stroke-dasharray="{dashes}" '
            f'd="M0 6L30 6"/></svg>{escape(curve.title)}</span>'
        )
    return f'<div class="key">{"".join(items)}</div>'


def _how(report: PagingReport) -> str:
    exact = [curve.title for curve in report.curves if curve.exact]
    text = f"{' and '.join(exact)}: every capacity from one pass. " if exact else ""
    if len(exact) < len(report.curves):
        others, count = "The others: " if exact else "", len(report.curves[0].capacity)
        text += f"{others}simulated at {count} capacities, straight lines between."
    return f"{text[:1].upper()}{text[1:]} {on_one_line(report.curves)}"


def _table(report: PagingReport) -> str:
    headers = ["policy", "knows the future", "misses", "hits", "evictions", "hit rate"]
    if report.page_bytes:
        headers.append("read again, projected")
    head = "".join(f"<th{'' if i < 2 else ' class=number'}>{text}</th>" for i, text in enumerate(headers))
    rows = []
    for row in report.rows:
        cells = [
            row.title, "no" if row.online else "yes", f"{row.misses:,}", f"{report.accesses - row.misses:,}",
            f"{row.evictions:,}", f"{100 * row.hit_rate:.2f} %",
        ]  # fmt: skip
        if report.page_bytes:
            cells.append(format_bytes((row.misses - report.pages) * report.page_bytes))
        rows.append(
            "".join(f"<td{'' if i < 2 else ' class=number'}>{escape(cell)}</td>" for i, cell in enumerate(cells))
        )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
