"""`compare_layouts`: the same program in pages, in segments, by a plan and in torch's caching allocator, side by side.

whatever has requests --> allocators.layouts --> LayoutsReport
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from memfit.allocators import layouts
from memfit.api.replay_sources import requests_from
from memfit.ir.graph import Graph
from memfit.ir.requests import Requests
from memfit.ir.step import Step
from memfit.ir.trace import Trace
from memfit.machine.devices import find_device
from memfit.planners.problem import Problem
from memfit.report.layouts_summary import LayoutsReport
from memfit.units import parse_bytes

Progress = Callable[[str, int | None, int | None], None]


def compare_layouts(
    target: str | Path | Requests | Trace | Graph | Problem | Step | Callable[..., Any], *,
    pages: Sequence[int | str] = layouts.PAGES, settings: Mapping[str, Any] | None = None, steps: int = 2,
    time_limit: float = 5.0, device: str = "cpu", progress: Progress | None = None,
) -> LayoutsReport:  # fmt: skip
    """Reserved bytes, internal and external fragmentation and metadata of one program, laid out each way.

    Args:
        target: a file (.npz trace, .csv of events or lifetimes, .json graph, a torch snapshot), a program
            (``file.py:function``), or the thing itself.
        pages: bytes of a page, one paged layout each.
        settings: keyword arguments for the target's function.
        steps: of a program, how many steps.
        time_limit: CPU seconds of planning.
        device: "cpu" or a GPU of the device table; there the scratch of CPU kernels is not part of a program.
        progress: called with (description, done, total).

    Raises:
        ProblemError: a page that is none, or nothing to lay out.
        MemfitError: the target cannot be used.
    Cost: that of predicting a program; then about 20 us an event.
    """
    say = progress or (lambda text, done, total: None)
    begun = time.process_time()
    source = requests_from(
        target, settings=settings, steps=steps, accelerator=find_device(device).kind == "gpu", say=say
    )
    found = layouts.compare_layouts(
        source.requests, [parse_bytes(page) for page in pages], time_limit=time_limit, progress=say
    )
    return LayoutsReport(
        source.name, source.kind, found, source.requests.label, time.process_time() - begun, source.notes
    )
