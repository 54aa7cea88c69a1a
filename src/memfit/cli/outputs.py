"""Write the files that a command was asked for."""

from __future__ import annotations

from memfit.errors import OutputError
from memfit.files import write_atomically
from memfit.report.html import memory_page
from memfit.report.perfetto import perfetto_trace
from memfit.report.summary import MemoryReport


def write_memory_files(
    report: MemoryReport, html: str | None, perfetto: str | None, save_trace: str | None
) -> list[str]:
    """Write what was asked for of a report; returns the paths written.

    Raises:
        OutputError: a file cannot be written, or the report has no events to write.
    """
    if html is not None:
        write_atomically(html, memory_page(report))
    if perfetto is not None:
        write_atomically(perfetto, perfetto_trace(report))
    if save_trace is not None:
        if report.timeline is None:
            raise OutputError(save_trace, "this report holds no events")
        report.timeline.trace.save(save_trace)
    return [path for path in (html, perfetto, save_trace) if path is not None]
