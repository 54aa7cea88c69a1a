"""A replay as one self-contained page: the same picture as the PNG, drawn in SVG, and every figure in tables.

No script, nothing fetched; light and dark follow the reader's system. Points of a curve are cut to the pixels that show,
so that a page stays far under 5 MB whatever the trace. Draws, computes nothing but places. Names that a user chose are
escaped, never read as markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

import numpy as np

from memfit.report.replay_summary import PolicyRow, ReplayReport
from memfit.report.terminal_replay import replay_headline, share
from memfit.units import format_bytes, format_seconds

WIDTH, BAR, LEFT, RIGHT = 1000, 28, 150, 210
SMALL_WIDTH, SMALL_HEIGHT = 290, 120
ROWS_LISTED = 40
_STYLE = """
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--ink); font-size: 13px; }
svg .axis { fill: var(--soft); font-size: 11.5px; }
.use { fill: #3a6ea5; } .rounding { fill: #e2b04a; } .holes { fill: #d8664a; } .kept { fill: var(--kept); }
.need { stroke: var(--ink); stroke-width: 1.2; stroke-dasharray: 5 3; } .rule { stroke: var(--line); }
:root { --kept: #e8d9cf; } @media (prefers-color-scheme: dark) { :root { --kept: #4a423d; } }
.bars { min-width: 680px; }
.key { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0 0 10px; font-size: 14px; }
.key svg { width: 12px; height: 12px; display: inline-block; margin-right: 7px; }
.many { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 12px 18px; }
figure { margin: 0; } figcaption { font-size: 13.5px; margin-bottom: 2px; }
"""


def replay_page(report: ReplayReport) -> str:
    """The page of a report, as HTML text."""
    rows = sorted(report.policies, key=lambda row: (row.peak_reserved, row.smallest_capacity))
    parts = [
        _intro(report), _section("What each allocator takes for the same requests", _key() + _bars(report, rows)),
        _section("The whole run, from start to end", _curves(report, rows)), _section("Policies", _policies(report)),
        _stranded(rows), _advice(report), _static(report), _notes(report),
    ]  # fmt: skip
    style = resources.files("memfit.report").joinpath("assets/page.css").read_text(encoding="utf-8") + _STYLE
    title = escape(f"memfit replay: {report.target}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{style}</style></head><body><main>{''.join(parts)}"
        f"<footer>Written by memfit replay. Bytes are {escape(report.kind)}.</footer></main></body></html>\n"
    )


def _intro(report: ReplayReport) -> str:
    facts = (
        f"{report.events:,} events, {report.blocks:,} allocations, the largest {format_bytes(report.largest)}; replayed in "
        f"{format_seconds(report.seconds)} of CPU time"
    )
    text = f"<h1>{escape(replay_headline(report))}</h1><p class='soft path'>{escape(report.target)}: {facts}</p>"
    if report.check is not None:
        check = report.check
        if check.differing:
            text = f"<p class='bad'>{check.differing} of {check.checked} recorded addresses differ from the replay; first at " \
                   f"{escape(check.first)}</p>" + text  # fmt: skip
        else:
            text += f"<p class='good'>All {check.checked} recorded addresses are those of the replay.</p>"
    return f"<header><div>{text}</div></header>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def _key() -> str:
    words = {
        "use": "in use by the program", "rounding": "lost to rounding up", "holes": "reserved beyond need, free in holes",
        "kept": "kept from one peak to the next",
    }  # fmt: skip
    items = (
        f'<span><svg viewBox="0 0 12 12"><rect class="{name}" width="12" height="12" rx="2"/></svg>{text}</span>'
        for name, text in words.items()
    )
    return f'<div class="key">{"".join(items)}</div>'


def _bars(report: ReplayReport, rows: Sequence[PolicyRow]) -> str:
    most = max([row.peak_reserved for row in rows] + [report.peak_live, 1])
    scale = (WIDTH - LEFT - RIGHT) / most
    height = 26 + BAR * len(rows)
    need = LEFT + report.peak_live * scale
    out = [
        f'<div class="wide"><svg class="bars" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="Reserved bytes of each policy at its peak">'
    ]
    for number, row in enumerate(rows):
        y = 22 + BAR * number
        live, allocated, reserved = row.at_peak
        tip = (
            f"{row.name}: {format_bytes(live)} in use, {format_bytes(allocated - live)} lost to rounding, "
            f"{format_bytes(reserved - allocated)} in holes"
        )
        out.append(
            f'<g><title>{escape(tip)}</title><text x="{LEFT - 8}" y="{y + 17}" text-anchor="end">{escape(row.key)}</text>'
        )
        kept = max(min(reserved, report.peak_live), allocated)
        spans = (("use", 0, live), ("rounding", live, allocated), ("kept", allocated, kept), ("holes", kept, reserved))
        for name, start, end in spans:
            out.append(
                f'<rect class="{name}" x="{LEFT + start * scale:.1f}" y="{y + 2}" width="{max(end - start, 0) * scale:.1f}" '
                f'height="{BAR - 7}"/>'
            )
        behind = LEFT + reserved * scale + 8
        text = f"{format_bytes(row.peak_reserved)} ({share(row.fragmentation)} lost)"
        out.append(f'<text x="{behind:.1f}" y="{y + 17}">{text}</text></g>')
    out.append(f'<line class="need" x1="{need:.1f}" x2="{need:.1f}" y1="18" y2="{height}"/>')
    out.append(
        f'<text class="axis" x="{need:.1f}" y="12" text-anchor="middle">what the program needs</text></svg></div>'
    )
    return "".join(out)


def _curves(report: ReplayReport, rows: Sequence[PolicyRow]) -> str:
    most = max([row.peak_reserved for row in rows] + [1])
    figures = []
    for row in rows:
        live, allocated, reserved = row.curve.live, row.curve.allocated, row.curve.reserved
        allocated = np.maximum(allocated, live)
        reserved = np.maximum(reserved, allocated)
        need = SMALL_HEIGHT * (1 - report.peak_live / most)
        areas = (
            ("holes", reserved), ("kept", np.minimum(reserved, report.peak_live)), ("rounding", allocated), ("use", live)
        )  # fmt: skip
        paths = "".join(
            f'<path class="{name}" d="{_area(row.curve.event, column, report.events, most)}"/>'
            for name, column in areas
        )
        figures.append(
            f"<figure><figcaption>{escape(row.key)}: {share(row.fragmentation)} lost"
            f'</figcaption><svg viewBox="0 0 {SMALL_WIDTH} {SMALL_HEIGHT}" preserveAspectRatio="none" role="img" '
            f'aria-label="Bytes of {escape(row.key)} over the run">{paths}'
            f'<line class="need" x1="0" x2="{SMALL_WIDTH}" y1="{need:.1f}" y2="{need:.1f}"/>'
            f'<line class="rule" x1="0" x2="{SMALL_WIDTH}" y1="{SMALL_HEIGHT}" y2="{SMALL_HEIGHT}"/></svg></figure>'
        )
    return f'<div class="many">{"".join(figures)}</div><p class="soft">Events to the right, all on one scale: the top is ' \
           f"{format_bytes(most)}; the dashed line is the program's own peak.</p>"  # fmt: skip


def _area(event: np.ndarray, column: np.ndarray, events: int, most: int) -> str:  # type: ignore[type-arg]
    """A path of steps, without the points that change nothing at a tenth of a pixel."""
    x = np.round(event * (SMALL_WIDTH / max(events, 1)), 1).tolist()
    y = np.round(SMALL_HEIGHT * (1 - column / most), 1).tolist()
    parts = [f"M0 {SMALL_HEIGHT}"]
    previous = None
    for across, up in zip(x, y, strict=True):
        if up != previous:
            parts.append(f"H{across:g}V{up:g}")
            previous = up
    parts.append(f"H{SMALL_WIDTH}V{SMALL_HEIGHT}Z")
    return "".join(parts)


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1) -> str:
    """A table; the first ``names`` columns are words, the rest figures. Cells are escaped here."""
    head = "".join(f"<th{'' if i < names else ' class=number'}>{escape(text)}</th>" for i, text in enumerate(headers))
    body = "".join(
        "<tr>"
        + "".join(f"<td{'' if i < names else ' class=number'}>{escape(cell)}</td>" for i, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _policies(report: ReplayReport) -> str:
    fits = report.capacity is not None
    headers = [
        "policy",
        "",
        "runs on",
        "driver calls there",
        "reserved",
        "driver calls",
        "lost",
        "by rounding",
        "in holes",
    ]
    rows = [
        [row.key, row.name, format_bytes(row.smallest_capacity), f"{row.calls_at_smallest:,}",
         format_bytes(row.peak_reserved), f"{row.driver_calls:,}", share(row.fragmentation), share(row.internal),
         share(row.external), *(["yes" if row.fits else "NO"] if fits else [])]
        for row in report.policies
    ]  # fmt: skip
    if fits:
        headers.append(f"runs in {format_bytes(report.capacity or 0)}")
    return _table(headers, rows, 2) + (
        "<p class='soft'>Runs on: the smallest capacity found by bisection. Reserved: without a limit, at its peak. Lost: 1 - "
        "peak live / peak reserved.</p>"
    )


def _stranded(rows: Sequence[PolicyRow]) -> str:
    listed = [
        [
            row.key,
            hole.why,
            format_bytes(hole.free_bytes),
            format_bytes(hole.segment_bytes),
            format_bytes(hole.largest_hole),
        ]
        for row in rows
        for hole in row.stranded[:5]
    ]
    if not listed:
        return ""
    headers = ["policy", "why", "free", "of the segment", "largest hole"]
    return _section(
        "Where free bytes lie when the allocator had to ask for more", _table(headers, listed[:ROWS_LISTED], 2)
    )


def _advice(report: ReplayReport) -> str:
    if not report.advice:
        return ""
    rows = [
        [row.string or "(the defaults)", format_bytes(row.smallest_capacity), f"{row.driver_calls:,}",
         format_bytes(row.peak_reserved)]
        for row in report.advice
    ]  # fmt: skip
    best = report.advice[0].string
    text = (
        f"<pre>export PYTORCH_ALLOC_CONF={escape(best)}</pre>"
        if best
        else "<p>The defaults are best for this trace.</p>"
    )
    return _section(
        "Settings of torch's allocator, best first",
        text + _table(["PYTORCH_ALLOC_CONF", "runs on", "driver calls there", "reserved without limit"], rows),
    )


def _static(report: ReplayReport) -> str:
    if report.static is None:
        return ""
    rows = [
        [side.name, format_bytes(side.peak), share(side.fragmentation), share(side.static_share),
         f"{side.seconds_per_event * 1e9:.0f} ns"]
        for side in report.static.contenders
    ]  # fmt: skip
    headers = ["", "reserved", "lost", "allocations by plan", "CPU time an event"]
    return _section("Static against dynamic", f"<p>{escape(report.static.recommendation)}</p>" + _table(headers, rows))


def _notes(report: ReplayReport) -> str:
    return "".join(f"<p class='soft'>note: {escape(note)}</p>" for note in report.notes)
