"""A locality analysis as one self-contained page: misses of every level before and after, reasons, miss-ratio curves, times.

Misses are bars, a colour an array, each level to its own scale, the lower bound a line across the first. No script, nothing
fetched; light and dark follow the reader's system. Names that a user chose are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from memfit.report.locality_summary import AdviceRow, LevelRow, LocalityReport, locality_headline
from memfit.report.page_frame import header, noted, page, section
from memfit.units import format_bytes, format_seconds

MOST_OPS, MOST_CHANGES, MOST_ARRAYS = 10, 4, 6
WIDTH, BAR, LEFT, RIGHT = 1000, 26, 190, 220
_COLOURS = ("#3d7cc4", "#3f9a63", "#c08a24", "#8a63c9", "#c25a6e", "#4f9fa8")
_OTHERS = "#8b9097"
_STYLE = """
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--ink); font-size: 13px; }
svg .axis { fill: var(--soft); font-size: 11.5px; } .grid { stroke: var(--line); } .line { fill: none; stroke-width: 2.2; }
.mark { stroke: var(--ink); stroke-dasharray: 4 3; } .drawn { min-width: 640px; }
.spread { stroke: var(--ink); stroke-width: 1.5; }
.key { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0 0 10px; font-size: 14px; }
.key i { width: 12px; height: 12px; border-radius: 3px; display: inline-block; margin-right: 7px; }
.changes { margin: 0; padding-left: 26px; } .changes li + li { margin-top: 10px; }
svg + .soft, .wide + .soft { margin-top: 8px; } h3 { font-size: 14px; margin: 14px 0 6px; font-weight: 600; }
"""


def locality_page(report: LocalityReport) -> str:
    """The page of a report, as HTML text."""
    model = report.limits is not None
    facts = f"{escape(report.target)} on {escape(report.machine)}; {format_seconds(report.seconds)} of CPU time"
    timed = any(row.after_seconds for _, row in _whole(report))
    parts = [
        header(locality_headline(report), facts),
        section("What to change", _advice(report)),
        section("Time of the whole, in turns (measured on this machine)", _times(report)) if timed else "",
        section("Operations: time (measured) and the least by the roofline (projected)", _ops(report)) if model else "",
        section(
            "Lines brought into each level (projected from the operations' tensors)"
            if model
            else "Misses of each level, as written and as recommended (simulated)",
            _misses(report),
        ),
        section("Why lines miss, as written", _reasons(report)) if report.reasons else "",
        section("Miss ratio of a fully associative cache of every size", _curves(report)) if report.curve else "",
        noted(report.notes),
    ]
    counted = "projected from tensors" if model else "simulated"
    return page("locality", report.target, parts, _STYLE, f"Misses are {counted}, times measured.")


def _whole(report: LocalityReport) -> list[tuple[str, AdviceRow]]:
    """The first changes of the whole program, with what the page calls them."""
    named = [(f"change {number}", row) for number, row in enumerate(report.advice, 1) if row.whole]
    return named[:MOST_CHANGES]


def _key(names: Sequence[tuple[str, str]]) -> str:
    items = "".join(f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in names)
    return f'<div class="key">{items}</div>'


def _svg(height: float, parts: Sequence[str], what: str) -> str:
    return (
        f'<div class="wide"><svg class="drawn" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(what)}">'
        f"{''.join(parts)}</svg></div>"
    )


def _rows(
    rows: Sequence[tuple[str, Sequence[tuple[float, str]], str]], what: str, most: float, mark: float | None = None
) -> str:
    """Bars of coloured parts under each other: (name, ((value, colour), ...), text); ``mark``: a line across, at its value."""
    height, scale = BAR * len(rows) + 6, (WIDTH - LEFT - RIGHT) / (most or 1.0)
    out = []
    for number, (name, parts, text) in enumerate(rows):
        y, x = number * BAR + 5, float(LEFT)
        out.append(f'<text x="{LEFT - 10}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        for value, colour in parts:
            out.append(f'<rect x="{x:.1f}" y="{y}" width="{value * scale:.2f}" height="{BAR - 8}" fill="{colour}"/>')
            x += value * scale
        out.append(f'<text x="{max(x, LEFT + 1.5) + 8:.1f}" y="{y + 14}">{escape(text)}</text>')
    if mark is not None and mark <= most:
        at = LEFT + mark * scale
        out.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{height}"/>')
    return _svg(height, out, what)


def _misses(report: LocalityReport) -> str:
    names = _arrays(report.levels)
    colours = {name: _COLOURS[n] for n, name in enumerate(names)}
    others = any(len(level.by_array) > len(names) for level in report.levels)
    others = others or any(row.misses and not row.by_array for _, row in _whole(report))
    key = [(name, colours[name]) for name in names] + ([("others, or not told apart", _OTHERS)] if others else [])
    out = [_key(key) if len(key) > 1 else ""]
    for number, level in enumerate(report.levels):
        rows = [("as written", _parts(level.misses, level.by_array, colours), _count(level.misses, level.accesses))]
        for name, advice in _whole(report):
            if level.name in advice.misses:
                count = advice.misses[level.name]
                parts = _parts(count, advice.by_array.get(level.name, {}), colours)
                less = f" ({level.misses / count:.1f} x fewer)" if 0 < count < 0.995 * level.misses else ""
                rows.append((name, parts, f"{count:,}{less}"))
        most = max(sum(value for value, _ in parts) for _, parts, _ in rows)
        bound = report.lower_bound_lines if number == 0 else None
        out.append(f"<h3>{escape(level.name)}</h3>{_rows(rows, f'Misses of {level.name}', most, bound)}")
    note = "In brackets: share of the accesses that reach the level. Each level has its own scale."
    if report.lower_bound_lines:
        least = f"{report.lower_bound_lines:,} lines, the least that any order brings into {report.levels[0].name}"
        note = f"Dashed: {least} (lower bound). {note}"
    return f"{''.join(out)}<p class='soft'>{escape(note)}</p>"


def _count(misses: int, accesses: int) -> str:
    return f"{misses:,} ({100 * misses / max(accesses, 1):.3g} %)"


def _arrays(levels: Sequence[LevelRow]) -> list[str]:
    """The arrays that miss most, over all levels, each level counting alike."""
    shares: dict[str, float] = {}
    for level in levels:
        for name, count in level.by_array.items():
            shares[name] = shares.get(name, 0.0) + count / max(level.misses, 1)
    ranked = sorted((name for name in shares if shares[name] > 0), key=lambda name: -shares[name])
    return sorted(ranked[:MOST_ARRAYS])


def _parts(misses: int, by_array: Mapping[str, int], colours: Mapping[str, str]) -> list[tuple[float, str]]:
    known = [(float(by_array[name]), colour) for name, colour in colours.items() if by_array.get(name)]
    rest = misses - sum(value for value, _ in known)
    return [*known, (rest, _OTHERS)] if rest > 0 else known


def _times(report: LocalityReport) -> str:
    rows: list[tuple[str, tuple[float, float, float]]] = []
    for name, advice in _whole(report):
        if advice.before_seconds and advice.after_seconds:
            if not rows:
                rows.append(("as written", advice.before_seconds))
            rows.append((name, advice.after_seconds))
    most = max(high for _, (_, _, high) in rows)
    scale, out = (WIDTH - LEFT - RIGHT) / (most or 1.0), []
    for number, (name, (low, middle, high)) in enumerate(rows):
        y, colour = number * BAR + 5, _COLOURS[0] if number == 0 else _COLOURS[1]
        out.append(f'<text x="{LEFT - 10}" y="{y + 14}" text-anchor="end">{name}</text>')
        out.append(f'<rect x="{LEFT}" y="{y}" width="{middle * scale:.2f}" height="{BAR - 8}" fill="{colour}"/>')
        across, end = y + (BAR - 8) / 2, LEFT + high * scale
        out.append(f'<line class="spread" x1="{LEFT + low * scale:.1f}" x2="{end:.1f}" y1="{across}" y2="{across}"/>')
        text = f"{1000 * middle:.3g} ms ({1000 * low:.3g} to {1000 * high:.3g})"
        out.append(f'<text x="{end + 8:.1f}" y="{y + 14}">{text}</text>')
    note = "<p class='soft'>Medians; the line, and the numbers in brackets, are quartiles.</p>"
    return _svg(BAR * len(rows) + 6, out, "Measured seconds") + note


def _ops(report: LocalityReport) -> str:
    rows: list[tuple[str, Sequence[tuple[float, str]], str]] = []
    limits = {"memory": _COLOURS[2], "compute": _COLOURS[0], "call": _OTHERS}
    for op in report.ops[:MOST_OPS]:
        name = op.name.removeprefix("aten.").removesuffix(".default")
        least = min(op.floor_seconds, op.seconds)
        parts = [(least, _COLOURS[3]), (op.seconds - least, limits.get(op.bound, _OTHERS))]
        text = f"{format_seconds(op.seconds)}, least {format_seconds(op.floor_seconds)}"
        rows.append((f"{name[:20]} x {op.calls}", parts, text))
    most = max((op.seconds for op in report.ops[:MOST_OPS]), default=1.0)
    key = [("the least by the roofline", _COLOURS[3]), *((f"above it, limited by {n}", c) for n, c in limits.items())]
    return _key(key) + _rows(rows, "Seconds of operations", most)


def _reasons(report: LocalityReport) -> str:
    numbers = "".join(f"<th class=number>{name}</th>" for name in ("misses", "cold", "capacity", "conflict"))
    head = f"<tr><th>array</th><th>level</th>{numbers}<th>mainly</th></tr>"
    rows = "".join(
        f"<tr><td>{escape(r.array)}</td><td>{escape(r.level)}</td><td class=number>{r.misses:,}</td>"
        f"<td class=number>{r.cold:,}</td>"
        f"<td class=number>{r.capacity:,}</td><td class=number>{r.conflict:,}</td>"
        f"<td>{escape(f'stride: {r.sets} sets' if r.word == 'stride' else r.word)}</td></tr>"
        for r in report.reasons
        if r.misses
    )
    return f"<div class='wide'><table>{head}{rows}</table></div>"


def _curves(report: LocalityReport) -> str:
    curves = [("as written", report.curve, _COLOURS[0])]
    for name, advice in _whole(report):
        if advice.curve:
            curves.append((name, advice.curve, _COLOURS[1]))
    height, top, bottom, left = 360, 16, 330, 60
    high = max(lines for _, curve, _ in curves for lines, _ in curve)
    most = max(max(ratio for _, curve, _ in curves for _, ratio in curve), 1e-9)

    def x(lines: float) -> float:
        return left + (WIDTH - left - 30) * math.log(max(lines, 1)) / math.log(max(high, 2))

    def y(ratio: float) -> float:
        return bottom - (bottom - top) * ratio / most

    out = []
    for part in range(5):
        ratio = most * part / 4
        out.append(f'<line class="grid" x1="{left}" x2="{WIDTH - 30}" y1="{y(ratio):.1f}" y2="{y(ratio):.1f}"/>')
        out.append(
            f'<text class="axis" x="{left - 8}" y="{y(ratio) + 4:.1f}" text-anchor="end">{100 * ratio:.3g} %</text>'
        )
    for _, curve, colour in reversed(curves):
        points, previous = [], None
        for lines, ratio in curve:
            if previous is not None:
                points.append(f"{x(lines):.1f},{y(previous):.1f}")
            points.append(f"{x(lines):.1f},{y(ratio):.1f}")
            previous = ratio
        points.append(f"{x(high):.1f},{y(previous or 0.0):.1f}")
        out.append(f'<polyline class="line" stroke="{colour}" points="{" ".join(points)}"/>')
    for name, size in report.sizes:
        at = x(size / report.line)
        if at <= WIDTH - 30:
            out.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{bottom}"/>')
            anchor, gap = ("end", -4) if at > WIDTH - 130 else ("start", 4)
            text = f"{escape(name)} {format_bytes(size)}"
            out.append(f'<text class="axis" x="{at + gap:.1f}" y="{top + 10}" text-anchor="{anchor}">{text}</text>')
    step = max(3, math.ceil(math.log2(max(high, 2)) / 8))
    for power in range(0, int(math.log2(max(high, 2))) + 1, step):
        text = format_bytes(2**power * report.line)
        out.append(f'<text class="axis" x="{x(2**power):.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>')
    key = _key([(name, colour) for name, _, colour in curves]) if len(curves) > 1 else ""
    return key + _svg(height, out, "Miss ratio over the size of a cache")


def _advice(report: LocalityReport) -> str:
    if not report.advice:
        what = "no change of layout saves time here" if report.limits else "the order as written is among the best"
        return f"<p>Nothing better was found: {what}.</p>"
    return f"<ol class='changes'>{''.join(_change(row) for row in report.advice)}</ol>"


def _change(row: AdviceRow) -> str:
    proof = f"{row.measured_speedup:.2f} times faster, measured" if row.measured_speedup is not None else row.measured
    bound = f"; {row.over_bound:.2f} times the lower bound" if row.over_bound else ""
    return (
        f"<li><b>{escape(row.kernel)}: {escape(row.change)}</b><br><span class='soft'>projected {row.projected_speedup:.2f} "
        f"times; {escape(proof)}{bound}; {escape(row.numerics)}</span></li>"
    )
