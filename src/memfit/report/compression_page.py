"""A compressed model as one self-contained page: before and after, quality against bytes, and a bar for each layer.

No script, nothing fetched; light and dark follow the reader's system. Draws, computes nothing but places. Names that a
user chose are escaped, never read as markup.
"""

from __future__ import annotations

from html import escape

from memfit.report.compression_summary import CompressionReport
from memfit.report.page_frame import header, noted, page, section
from memfit.report.terminal_compression import compression_headline, side_rows
from memfit.report.tradeoff_chart import STYLE, chart
from memfit.units import format_bytes, format_seconds

WIDTH, BAR, LEFT, RIGHT = 1000, 20, 330, 210
_LAYERS = 200
_STYLE = """
svg { width: 100%; height: auto; display: block; min-width: 640px; } svg text { fill: var(--ink); font-size: 12px; }
.was { fill: var(--was); } .now { fill: #4f8a5b; } :root { --was: #d9d4ca; }
@media (prefers-color-scheme: dark) { :root { --was: #45494f; } }
"""


def compression_page(report: CompressionReport) -> str:
    """The page of a report, as HTML text."""
    facts = f"{escape(report.model)}, in {format_seconds(report.seconds)}; written to {escape(report.output)}"
    rows = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(f'<td class=num>{escape(text)}</td>' for text in cells)}</tr>"
        for name, *cells in side_rows(report)
    )
    parts = [
        header(compression_headline(report), facts),
        "<section><h2>Before and after</h2><table><tr><th></th><th>before</th><th>after</th><th></th></tr>"
        f"{rows}</table></section>",
        f"<section><h2>Bytes of each layer: before in grey, after in green</h2>{_bars(report)}</section>",
        noted(report.notes),
    ]
    if report.tradeoff:
        parts.insert(2, section("Quality against bytes", chart(report)))
    return page("optimize", report.model, parts, _STYLE + STYLE, "Errors, peaks and times are measured.")


def _bars(report: CompressionReport) -> str:
    layers = sorted(report.layers, key=lambda row: -row.before)[:_LAYERS]
    scale = (WIDTH - LEFT - RIGHT) / max([row.before for row in layers], default=1)
    out = [f'<svg viewBox="0 0 {WIDTH} {BAR * len(layers) + 4}" role="img">']
    for number, row in enumerate(layers):
        y = number * BAR
        error = "" if row.error is None else f", {row.error:.2%}"
        out += [
            f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(row.name[-46:])}</text>',
            f'<rect class="was" x="{LEFT}" y="{y + 3}" width="{row.before * scale:.1f}" height="{BAR - 6}"/>',
            f'<rect class="now" x="{LEFT}" y="{y + 6}" width="{row.after * scale:.1f}" height="{BAR - 12}"/>',
            f'<text x="{LEFT + row.before * scale + 8:.1f}" y="{y + 14}">{escape(row.format)} '
            f"{format_bytes(row.after)}{error}</text>",
        ]
    return "".join(out) + "</svg>"
