"""The summary of a machine, for a terminal, and the picture of its latency over working sets. Draws, computes nothing."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from memfit.machine.spec import Machine
from memfit.report.picture_frame import check_matplotlib
from memfit.report.terminal import name_files, say, section, show, table
from memfit.units import format_bytes, format_seconds


def draw_machine(console: Console, machine: Machine, written: Sequence[str] = ()) -> None:
    """Print the summary of ``machine``; ``written``: paths of files to name at the end."""
    say(console, f"{machine.name}: {len(machine.caches)} levels of cache", style="bold")
    took = f" in {format_seconds(machine.seconds)}" if machine.seconds else ""
    say(console, f"source: {machine.source}{took}", style="dim")
    section(console, "Levels")
    drawn = table("", "bytes", "ways", "line", "measured edge", "system")
    for level in machine.levels:
        edge = "" if level.measured_bytes is None else " to ".join(format_bytes(size) for size in level.measured_bytes)
        word = {True: "agrees", False: "differs", None: ""}[level.agrees]
        drawn.add_row(
            Text(level.name),
            format_bytes(level.bytes) if level.bytes else "",
            str(level.ways or ""),
            str(level.line),
            edge,
            word,
        )
    show(console, drawn)
    if any(level.latency_ns for level in machine.levels):
        section(console, "As one core meets them")
        drawn = table("", "latency", "read", "copy", "write")
        for level in machine.levels:
            rates = (level.bandwidth, level.copy_bandwidth, level.write_bandwidth)
            latency = "" if level.latency_ns is None else f"{level.latency_ns:.1f} ns"
            drawn.add_row(Text(level.name), latency, *(_rate(rate) for rate in rates))
        show(console, drawn)
    if machine.tlb:
        section(console, "Address translation, small pages")
        drawn = table("", "pages", "reach", "a miss costs")
        for tlb in machine.tlb:
            drawn.add_row(
                Text(tlb.name), str(tlb.entries), format_bytes(tlb.entries * tlb.page), f"{tlb.miss_ns:.1f} ns"
            )
        show(console, drawn)
    huge = (
        f", huge {format_bytes(machine.huge_page_bytes)} ({machine.huge_pages})"
        if machine.huge_page_bytes
        else ", no huge pages"
    )
    say(
        console,
        f"pages: {format_bytes(machine.page_bytes)}{huge}; {machine.processors} processors, "
        f"{len(machine.numa) or 1} NUMA node(s)",
    )
    if machine.touch_ns and machine.huge_touch_ns:
        say(
            console,
            f"first touch of a page: {machine.touch_ns / 1000:.2f} us; of as many bytes of huge pages: "
            f"{machine.huge_touch_ns / 1000:.2f} us",
        )
    for note in machine.notes:
        say(console, f"note: {note}", style="yellow")
    name_files(console, written)


def _rate(rate: float | None) -> str:
    return "" if not rate else f"{rate / 1e9:.1f} GB/s"


def machine_picture(machine: Machine, *, svg: bool = False) -> bytes:
    """Latency over working sets as a PNG (or SVG), with the levels' ends marked.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(
        [size for size, _ in machine.curve], [ns for _, ns in machine.curve], marker="o", markersize=3, color="#2b6cb0"
    )
    axes.set(
        xscale="log", yscale="log", xlabel="working set", ylabel="nanoseconds a dependent load", title=machine.name
    )
    axes.set_xscale("log", base=2)
    ticks = [2**n for n in range(12, 28, 2)]
    axes.set_xticks(ticks, [format_bytes(tick) for tick in ticks])
    axes.grid(alpha=0.3)
    for level in machine.caches:
        axes.axvline(level.bytes, color="#c05621", linestyle="--", linewidth=1)
        axes.annotate(level.name, (level.bytes, axes.get_ylim()[1]), ha="right", va="top", color="#c05621")
        if level.measured_bytes and level.measured_bytes[1] > level.measured_bytes[0]:
            axes.axvspan(*level.measured_bytes, color="#c05621", alpha=0.12)
    out = io.BytesIO()
    figure.savefig(out, format="svg" if svg else "png", dpi=130)
    return out.getvalue()


def machine_page(machine: Machine) -> str:
    """The summary and the picture as one self-contained page."""
    from html import escape

    drawn = io.StringIO()
    draw_machine(Console(file=drawn, width=140, highlight=False, no_color=True), machine)
    picture = machine_picture(machine, svg=True).decode().partition("<svg")
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>memfit machine: {escape(machine.name)}</title><style>body{{font-family:sans-serif;margin:2rem auto;"
        "max-width:1100px}pre{overflow-x:auto}svg{width:100%;height:auto}</style></head><body>"
        f"<h1>{escape(machine.name)}</h1><svg{picture[2]}<pre>{escape(drawn.getvalue())}</pre></body></html>\n"
    )
