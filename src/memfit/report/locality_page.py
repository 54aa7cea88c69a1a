"""A locality analysis as one self-contained page: misses of every level before and after, reasons, miss-ratio curve, times.

No script, nothing fetched; light and dark follow the reader's system. Names that a user chose are escaped.
"""

from __future__ import annotations

import math
from html import escape
from importlib import resources

from memfit.report.locality_summary import AdviceRow, LocalityReport, locality_headline
from memfit.units import format_bytes, format_seconds

MOST_OPS = 10
WIDTH, BAR, LEFT, RIGHT = 1000, 26, 250, 130
_COLOURS = ("#2b6cb0", "#2f855a", "#b7791f", "#6b46c1")
_STYLE = """
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--ink); font-size: 13px; }
svg .axis { fill: var(--soft); font-size: 11.5px; } .grid { stroke: var(--line); } .line { fill: none; stroke-width: 2.2; }
.mark { stroke: var(--ink); stroke-dasharray: 4 3; } .table { overflow-x: auto; } td.n { text-align: right; }
"""


def locality_page(report: LocalityReport) -> str:
    """The page of a report, as HTML text."""
    model = report.limits is not None
    facts = f"{escape(report.target)} on {escape(report.machine)}; {format_seconds(report.seconds)} of CPU time"
    parts = [
        f"<header><div><h1>{escape(locality_headline(report))}</h1><p class='soft path'>{facts}</p></div></header>",
        _section("Operations: time (measured) and the least by the roofline (projected)", _ops(report))
        if model
        else "",
        _section(
            "Lines brought into each level (projected from the operations' tensors)"
            if model
            else "Misses of each level, as written and as recommended (simulated)",
            _bars(report),
        ),
        _section("Time of the whole, in turns (measured on this machine)", _times(report))
        if any(a.after_seconds for a in report.advice)
        else "",
        _section("Why lines miss", _reasons(report)) if report.reasons else "",
        _section("Miss ratio of a fully associative cache of every size, as written", _curve(report))
        if report.curve
        else "",
        _section("What to change", _advice(report)),
        "".join(f"<p class='soft'>note: {escape(note)}</p>" for note in report.notes),
    ]
    style = resources.files("memfit.report").joinpath("assets/page.css").read_text(encoding="utf-8") + _STYLE
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(f'memfit locality: {report.target}')}</title><style>{style}</style></head><body><main>"
        f"{''.join(parts)}<footer>Written by memfit locality. Misses are {'projected' if model else 'simulated'}, "
        "times measured.</footer>"
        "</main></body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _bar(rows: list[tuple[str, float, str, str]]) -> str:
    most = max((value for _, value, _, _ in rows), default=1.0) or 1.0
    height = BAR * len(rows) + 4
    out = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img">']
    for number, (name, value, text, colour) in enumerate(rows):
        y, width = number * BAR + 4, max(1.0, (WIDTH - LEFT - RIGHT) * value / most)
        out.append(f'<text x="{LEFT - 10}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        out.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 8}" rx="2" fill="{colour}"/>')
        out.append(f'<text x="{LEFT + width + 8:.1f}" y="{y + 14}">{escape(text)}</text>')
    return "".join(out) + "</svg>"


def _bars(report: LocalityReport) -> str:
    rows: list[tuple[str, float, str, str]] = []
    for level in report.levels:
        rows.append((f"{level.name} as written", level.misses, f"{level.misses:,}", _COLOURS[0]))
        for advice in report.advice[:2]:
            if level.name in advice.misses:
                count = advice.misses[level.name]
                rows.append((f"{level.name} {_short(advice)}", count, f"{count:,}", _COLOURS[1]))
    if report.lower_bound_lines:
        rows.append(("lower bound", report.lower_bound_lines, f"{report.lower_bound_lines:,}", _COLOURS[2]))
    return _bar(rows)


def _short(advice: AdviceRow) -> str:
    return advice.change if len(advice.change) < 28 else advice.change[:26] + "…"


def _times(report: LocalityReport) -> str:
    rows: list[tuple[str, float, str, str]] = []
    for advice in report.advice:
        if advice.before_seconds and advice.after_seconds:
            if not rows:
                rows.append(("as written", advice.before_seconds[1], _spread(advice.before_seconds), _COLOURS[0]))
            rows.append((_short(advice), advice.after_seconds[1], _spread(advice.after_seconds), _COLOURS[1]))
    return _bar(rows)


def _ops(report: LocalityReport) -> str:
    rows = []
    for op in report.ops[:MOST_OPS]:
        name = op.name.removeprefix("aten.").removesuffix(".default")
        colour = _COLOURS[2] if op.bound == "memory" else _COLOURS[0]
        rows.append((f"{name[:24]} x {op.calls}", op.seconds, f"{format_seconds(op.seconds)}, {op.bound}", colour))
        rows.append(("least", op.floor_seconds, format_seconds(op.floor_seconds), _COLOURS[3]))
    return _bar(rows)


def _spread(seconds: tuple[float, float, float]) -> str:
    return f"{1000 * seconds[1]:.3g} ms"


def _reasons(report: LocalityReport) -> str:
    head = "<tr><th>array</th><th>level</th><th>misses</th><th>cold</th><th>capacity</th><th>conflict</th><th>mainly</th></tr>"
    rows = "".join(
        f"<tr><td>{escape(r.array)}</td><td>{escape(r.level)}</td><td class=n>{r.misses:,}</td><td class=n>{r.cold:,}</td>"
        f"<td class=n>{r.capacity:,}</td><td class=n>{r.conflict:,}</td>"
        f"<td>{escape(f'stride: {r.sets} sets' if r.word == 'stride' else r.word)}</td></tr>"
        for r in report.reasons
        if r.misses
    )
    return f"<div class='table'><table>{head}{rows}</table></div>"


def _curve(report: LocalityReport) -> str:
    height, top, bottom, left = 360, 16, 330, 60
    high = max(lines for lines, _ in report.curve)
    most = max(max(ratio for _, ratio in report.curve), 1e-9)

    def x(lines: float) -> float:
        return left + (WIDTH - left - 30) * math.log(max(lines, 1)) / math.log(max(high, 2))

    def y(ratio: float) -> float:
        return bottom - (bottom - top) * ratio / most

    out = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img">']
    for part in range(5):
        ratio = most * part / 4
        out.append(f'<line class="grid" x1="{left}" x2="{WIDTH - 30}" y1="{y(ratio):.1f}" y2="{y(ratio):.1f}"/>')
        out.append(
            f'<text class="axis" x="{left - 8}" y="{y(ratio) + 4:.1f}" text-anchor="end">{100 * ratio:.2g} %</text>'
        )
    points = []
    previous = None
    for lines, ratio in report.curve:
        if previous is not None:
            points.append(f"{x(lines):.1f},{y(previous):.1f}")
        points.append(f"{x(lines):.1f},{y(ratio):.1f}")
        previous = ratio
    out.append(f'<polyline class="line" stroke="{_COLOURS[0]}" points="{" ".join(points)}"/>')
    for name, size in report.sizes:
        at = x(size / report.line)
        if at <= WIDTH - 30:
            out.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{bottom}"/>')
            out.append(f'<text class="axis" x="{at + 4:.1f}" y="{top + 10}">{escape(name)} {format_bytes(size)}</text>')
    for power in range(0, int(math.log2(max(high, 2))) + 1, 3):
        text = format_bytes(2**power * report.line)
        out.append(f'<text class="axis" x="{x(2**power):.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>')
    return "".join(out) + "</svg>"


def _advice(report: LocalityReport) -> str:
    if not report.advice:
        what = "no change of layout saves time here" if report.limits else "the order as written is among the best"
        return f"<p>Nothing better was found: {what}.</p>"
    out = []
    for row in report.advice:
        proof = (
            f"{row.measured_speedup:.2f} times faster, measured" if row.measured_speedup is not None else row.measured
        )
        bound = f"; {row.over_bound:.2f} times the lower bound" if row.over_bound else ""
        out.append(
            f"<p><b>{escape(row.kernel)}: {escape(row.change)}</b><br>projected {row.projected_speedup:.2f} times; "
            f"{escape(proof)}{bound}; {escape(row.numerics)}</p>"
        )
    return "".join(out)
