"""A sweep as one self-contained page: a field for each combination, or a bar for each value where one name varies.

    batch   512    1024   2048                    batch  |  capacity
      1   [ 9 MiB][18 MiB][36 MiB]                  1    [###]      :
      8   [70 MiB][140   ][no 280]                  8    [##########:####]  no

A field's strength is its share of the capacity; what does not fit is also struck out and said in words, not by colour
alone. No script, nothing fetched. Draws, computes nothing but places. Names that a user chose are escaped.
"""

from __future__ import annotations

from html import escape

from memfit.report.page_frame import header, noted, page, section
from memfit.report.sweep_summary import SweepPoint, SweepReport
from memfit.units import format_bytes

WIDTH, BAR, LABEL, RIGHT = 1000, 30, 150, 170
ERRORS = 5
_STYLE = """
.grid { border-collapse: separate; border-spacing: 3px; width: auto; min-width: 0; }
.grid th { border: 0; padding: 4px 10px; text-align: right; font-variant-numeric: tabular-nums; }
.grid td { border: 0; padding: 7px 12px; border-radius: 5px; text-align: right; white-space: nowrap; min-width: 92px;
  font-variant-numeric: tabular-nums; position: relative; background: var(--shade); }
.grid td::before { content: ""; position: absolute; inset: 0; border-radius: 5px; opacity: var(--share); }
.grid td.yes::before { background: #3f9a62; } .grid td.no::before { background: #cf5642; }
.grid td b, .grid td small { position: relative; } .grid td b { font-weight: 600; }
.grid td small { display: block; font-size: 12px; }
.grid td.cannot { background: none; border: 1px dashed var(--line); color: var(--soft); }
.across { text-align: center !important; }
svg { width: 100%; height: auto; display: block; min-width: 560px; }
svg text { fill: var(--ink); font-size: 13px; paint-order: stroke; stroke: var(--panel); stroke-width: 4px; }
svg .axis { fill: var(--soft); font-size: 11.5px; } svg .yes { fill: #3f9a62; } svg .no { fill: #cf5642; }
.mark { stroke: var(--ink); stroke-dasharray: 4 3; }
"""


def sweep_page(report: SweepReport) -> str:
    """The page of a sweep, as HTML text."""
    facts = f"{escape(report.target)}; swept: {escape(', '.join(report.swept))}"
    title = "What fits: " + (
        "peak by " + next(iter(report.swept)) if len(report.swept) == 1 else "peak of each combination"
    )
    parts = [
        header(report.headline, facts),
        section(title, _bars(report) if len(report.swept) == 1 else _grid(report)),
        noted(
            f"{', '.join(f'{name}={value}' for name, value in first.items())}"
            f"{f' and {count - 1} more' if count > 1 else ''}: {error}"
            for error, count, first in report.failures()[:ERRORS]
        ),
    ]
    return page("predict --sweep", report.target, parts, _STYLE, "Every figure is projected.")


def _grid(report: SweepReport) -> str:
    *down, across = report.swept
    head = "".join(f"<th>{escape(name)}</th>" for name in down)
    columns = "".join(f"<th>{escape(str(value))}</th>" for value in report.swept[across])
    rows = "".join(
        f"<tr>{''.join(f'<th>{escape(str(value))}</th>' for value in values)}"
        f"{''.join(_field(report, point) for point in points)}</tr>"
        for values, points in report.lines()
    )
    top = f'<tr>{"<th></th>" * len(down)}<th class="across" colspan="{len(report.swept[across])}">{escape(across)}</th></tr>'
    return (
        f'<div class="wide"><table class="grid"><thead>{top}<tr>{head}{columns}</tr></thead><tbody>{rows}</tbody></table></div>'
        f"<p class='soft'>Green fits, stronger the fuller; red does not. In small: share of the "
        f"{format_bytes(report.capacity)}.</p>"
    )


def _field(report: SweepReport, point: SweepPoint) -> str:
    if point.error:
        return f'<td class="cannot" title="{escape(point.error[:300])}">cannot</td>'
    share = report.need(point) / max(report.capacity, 1)
    strength = 0.12 + 0.48 * share if point.fits else 0.35 + 0.3 * min(1.0, (share - 1) / 3)
    return (
        f'<td class="{"yes" if point.fits else "no"}" style="--share:{max(0.1, strength):.2f}">'
        f"<b>{format_bytes(report.need(point))}</b><small>{'' if point.fits else 'no: '}{share:.0%}</small></td>"
    )


def _bars(report: SweepReport) -> str:
    (name,) = report.swept
    most = max(report.need(point) for point in report.points)
    far = max(
        most, report.capacity if report.capacity <= 4 * most else 0
    )  # a capacity far away would flatten every bar
    scale = (WIDTH - LABEL - RIGHT) / max(far, 1)
    height = BAR * len(report.points) + 34
    out = [
        f'<div class="wide"><svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Peak of each value of {escape(name)}">'
    ]
    for number, point in enumerate(report.points):
        y = 22 + BAR * number
        label = escape(f"{name}={point.values[name]}"[-22:])
        out.append(f'<text x="{LABEL - 10}" y="{y + 16}" text-anchor="end">{label}</text>')
        if point.error:
            out.append(f'<text class="axis" x="{LABEL}" y="{y + 16}">cannot</text>')
            continue
        wide = report.need(point) * scale
        word = "" if point.fits else ", does not fit"
        out.append(
            f'<rect class="{"yes" if point.fits else "no"}" x="{LABEL}" y="{y + 3}" width="{wide:.1f}" height="{BAR - 9}"/>'
            f'<text x="{LABEL + wide + 8:.1f}" y="{y + 17}">{format_bytes(report.need(point))}{word}</text>'
        )
    if report.capacity <= far:
        x = LABEL + report.capacity * scale
        anchor = "end" if x > WIDTH - 200 else "start"
        out.append(
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="16" y2="{height - 8}"/><text class="axis" x="{x:.1f}" y="12" '
            f'text-anchor="{anchor}">capacity {format_bytes(report.capacity)}</text>'
        )
    return "".join(out) + "</svg></div>"
