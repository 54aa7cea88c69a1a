"""A leak hunt as one self-contained page: the answer, memory over the steps in SVG, one card a leak with its fix.

No script, nothing fetched; light and dark follow the reader's system. Draws, computes nothing but places. Names that a
user chose are escaped, never read as markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources

from memfit.ir.leak import Finding, LeakReport, Point
from memfit.report.terminal_leaks import leak_facts, leak_headline, places, slope_words
from memfit.units import format_bytes

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1000, 300, 84, 16, 16, 46
_CURVES = {
    "heap": ("malloc: in use", "#c9573c"), "python": ("Python's small objects", "#4fa8b8"),
    "resident": ("resident", "#8f8f8f"), "workers": ("largest worker", "#8765b5"),
}  # fmt: skip
_STYLE = """
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--ink); font-size: 13px; }
svg .axis { fill: var(--soft); font-size: 11.5px; } .grid { stroke: var(--line); }
.line { fill: none; stroke-width: 2.2; stroke-linejoin: round; } .curve { min-width: 560px; }
.key { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0 0 10px; font-size: 14px; }
.key i { display: inline-block; width: 22px; height: 3px; margin: 0 7px 4px 0; vertical-align: middle; }
.leak { border: 1px solid var(--line); border-left: 5px solid #c9573c; border-radius: 8px; padding: 14px 18px;
  margin: 0 0 16px; }
.leak h3 { margin: 0 0 4px; font-size: 17px; overflow-wrap: anywhere; } .leak p { margin: 4px 0; }
.leak dl { display: grid; grid-template-columns: 110px 1fr; gap: 4px 12px; margin: 10px 0 0; }
.leak dt { color: var(--soft); } .leak dd { margin: 0; overflow-wrap: anywhere; }
.fix { font-weight: 600; } .kind { color: var(--soft); font-size: 14px; }
@media (max-width: 520px) { .leak dl { grid-template-columns: 1fr; gap: 0; } .leak dt { margin-top: 6px; } }
"""
_ROWS = 40
_NOTE = "Growth since the first sample. Resident counts what the watching itself takes too; the others do not."


def leaks_page(report: LeakReport) -> str:
    """The page of a report, as HTML text."""
    parts = [
        f"<header><div><div class='soft path'>memfit leaks · {escape(leak_facts(report))}</div>"
        f"<h1>{escape(leak_headline(report))}</h1></div></header>",
        "".join(_leak(number, finding, report.lines) for number, finding in enumerate(report.findings[:_ROWS], 1)),
        _section("Memory over the steps, measured", _curves(report)) if any(report.curves.values()) else "",
        _section("Grew, and is no leak", _quiet(report)) if report.quiet else "",
        "".join(f"<p class='soft'>note: {escape(note)}</p>" for note in report.notes[:_ROWS]),
    ]
    style = (resources.files("memfit.report") / "assets" / "page.css").read_text(encoding="utf-8")
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'><meta name='color-scheme' content='light dark'>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(f'memfit leaks: {report.target}')}</title><style>{style}{_STYLE}</style></head>"
        f"<body><main id='page'>{''.join(parts)}</main></body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _leak(number: int, finding: Finding, lines: Mapping[str, str]) -> str:
    rows = [("grows by", escape(slope_words(finding))), ("held by", f"<code>{escape(finding.holder)}</code>")]
    for name, at in places(finding):
        written = f"<br><code class='soft'>{escape(lines[at])}</code>" if at in lines else ""
        rows.append((name, f"<code>{escape(at)}</code>{written}"))
    rows.append(("fix", f"<span class='fix'>{escape(finding.fix)}</span>"))
    if len(finding.chain) > 1:
        rows.append(("keeps alive", escape("; ".join(part.removeprefix("holds ") for part in finding.chain[1:]))))
    body = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in rows)
    return (
        f"<div class='leak'><h3>{number}. <code>{escape(finding.holder)}</code></h3>"
        f"<p class='kind'>{escape(finding.what)}</p><dl>{body}</dl></div>"
    )


def _quiet(report: LeakReport) -> str:
    return "".join(
        f"<p><code>{escape(row['what'])}</code>: <span class='soft'>{escape(row['why'])}</span></p>"
        for row in report.quiet[:_ROWS]
    )


def _curves(report: LeakReport) -> str:
    curves = {name: points for name, points in report.curves.items() if len(points) > 1 and name in _CURVES}
    if not curves:
        return "<p class='soft'>too few samples to draw</p>"
    base = {name: points[0][1] for name, points in curves.items()}
    last = max(points[-1][0] for points in curves.values())
    first = min(points[0][0] for points in curves.values())
    values = [nbytes - base[name] for name, points in curves.items() for _, nbytes in points]
    low, high = min(*values, 0), max(*values, 1)
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(point: Point, start: int) -> str:
        x = LEFT + wide * (point[0] - first) / max(1, last - first)
        return f"{x:.1f} {TOP + tall * (high - (point[1] - start)) / (high - low):.1f}"

    out = ["<div class='wide'><svg class='curve' viewBox='0 0 1000 300' role='img' aria-label='Growth over the steps'>"]
    for part in range(5):
        y, level = TOP + tall * part / 4, high - (high - low) * part / 4
        out.append(f"<line class='grid' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>")
        text = ("−" if level < 0 else "+") + format_bytes(abs(level))
        out.append(f"<text class='axis' x='{LEFT - 8}' y='{y + 4:.1f}' text-anchor='end'>{text}</text>")
        x, step = LEFT + wide * part / 4, first + (last - first) * part // 4
        out.append(f"<text class='axis' x='{x:.1f}' y='{HEIGHT - 24}' text-anchor='middle'>{step:,}</text>")
    out.append(f"<text class='axis' x='{LEFT + wide / 2:.0f}' y='{HEIGHT - 6}' text-anchor='middle'>step</text>")
    for name, points in curves.items():
        path = "L".join(place(point, base[name]) for point in _thinned(points))
        out.append(f"<path class='line' stroke='{_CURVES[name][1]}' d='M{path}'/>")
    key = "".join(
        f"<span><i style='background:{_CURVES[name][1]}'></i>{escape(_CURVES[name][0])}</span>" for name in curves
    )
    return f"<div class='key'>{key}</div>{''.join(out)}</svg></div><p class='soft'>{_NOTE}</p>"


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    step = max(1, len(points) // 800)
    return [*points[::step], points[-1]]
