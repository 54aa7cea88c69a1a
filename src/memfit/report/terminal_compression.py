"""The summary of a compressed model, for a terminal: bytes, time and error, before and after, and the layers' formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from memfit.report.compression_summary import CompressedSide, CompressionReport
from memfit.report.terminal import bytes_or_dash, name_files, say, section, show, table
from memfit.report.words import keep_end, round_size
from memfit.units import format_bytes, format_seconds

_LAYERS = 20


def draw_compression(console: Console, report: CompressionReport, written: Sequence[str] = ()) -> None:
    """Print the summary of ``report``; ``written``: paths of files to name at the end."""
    say(console, compression_headline(report), style="bold")
    say(console, f"{report.model}, in {format_seconds(report.seconds)}", style="dim")
    section(console, "Before and after")
    rows = table("", "before", "after", "")
    for name, before, after, ratio in side_rows(report):
        rows.add_row(name, before, after, ratio)
    show(console, rows)
    section(console, "Layers")
    layers = table("layer", "format", "bytes", "was", "output error alone")
    for row in sorted(report.layers, key=lambda row: -row.before)[:_LAYERS]:
        error = "-" if row.error is None else f"{row.error:.3%}"
        layers.add_row(
            Text(keep_end(row.name, 44)), row.format, format_bytes(row.after), format_bytes(row.before), error
        )
    show(console, layers)
    counts = Counter(row.format for row in report.layers)
    more = f"; the largest {_LAYERS} shown" if len(report.layers) > _LAYERS else ""
    say(console, f"{', '.join(f'{count} in {name}' for name, count in counts.most_common())}{more}")
    for note in report.notes:
        say(console, f"note: {note}", style="dim")
    if report.recipe:
        section(console, "Use it")
        say(console, f"  model = memfit.load_compressed({report.output!r})")
    name_files(console, written)


def compression_headline(report: CompressionReport) -> str:
    """The answer in one sentence."""
    size = (
        f"{format_bytes(report.after.file_bytes)}, {ratio(report.before.file_bytes, report.after.file_bytes)} smaller"
    )
    kept = f"Keeps {round_size(report.budget)}: " if report.budget is not None else ""
    if report.relative_error is None:
        return f"{kept}{size}; output error not measured"
    return f"{kept}{size}; output error {report.relative_error:.2%} of the output's norm, measured on the whole model"


def side_rows(report: CompressionReport) -> list[tuple[str, str, str, str]]:
    """(figure, before, after, ratio) for every figure that was measured."""
    before, after = report.before, report.after
    rows = [
        ("file", format_bytes(before.file_bytes), format_bytes(after.file_bytes), ratio(before.file_bytes, after.file_bytes)),
        ("constants in memory", format_bytes(before.constants), format_bytes(after.constants),
         ratio(before.constants, after.constants)),
    ]  # fmt: skip
    if before.peak is not None or after.peak is not None:
        rows.append(("peak of a run, measured", bytes_or_dash(before.peak), bytes_or_dash(after.peak),
                     ratio(before.peak, after.peak)))  # fmt: skip
    if before.seconds is not None and after.seconds is not None:
        rows.append(("time of a run", format_seconds(before.seconds), format_seconds(after.seconds),
                     f"{after.seconds / max(before.seconds, 1e-12):.2f}x"))  # fmt: skip
    if before.nodes is not None and after.nodes is not None:
        rows.append(("operations", str(before.nodes), str(after.nodes), ""))
    rows += _metric(before, after)
    if report.max_error is not None:
        rows.append(("largest error", "", f"{report.max_error:.3%}", "of the largest output"))
    return rows


def _metric(before: CompressedSide, after: CompressedSide) -> list[tuple[str, str, str, str]]:
    if before.metric is None or after.metric is None:
        return []
    return [("metric", f"{before.metric:.6g}", f"{after.metric:.6g}", f"{after.metric - before.metric:+.3g}")]


def ratio(before: int | None, after: int | None) -> str:
    """How many times smaller.

    >>> ratio(100, 25), ratio(None, 1)
    ('4.00x', '')
    """
    return f"{before / after:.2f}x" if before and after else ""
