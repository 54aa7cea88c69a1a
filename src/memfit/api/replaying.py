"""`replay`: what each allocator would have reserved for a program's requests, and the least memory each runs on.

whatever has events --> Requests --> every policy: without limit, at the smallest capacity, at the one asked about
                                \\-> advise: every sensible PYTORCH_ALLOC_CONF        \\-> static against dynamic
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memfit.allocators.advise import advise as advise_settings
from memfit.allocators.caching import CachingPolicy
from memfit.allocators.caching_settings import CachingSettings
from memfit.allocators.policy import ReplaySeries
from memfit.allocators.replay import Result, compare, policies_named
from memfit.allocators.snapshots import Snapshot, check_addresses
from memfit.api.replay_sources import requests_from
from memfit.errors import CapacityError, TraceError
from memfit.ir.graph import Graph
from memfit.ir.requests import Action, Requests
from memfit.ir.step import Step
from memfit.ir.trace import Trace
from memfit.machine.devices import find_device
from memfit.planners.problem import Problem
from memfit.report.replay_summary import AddressCheck, AdviceRow, Curve, PolicyRow, ReplayReport

Progress = Callable[[str, int | None, int | None], None]
POINTS = 600
STATIC_STEPS = 4


def replay(
    target: str | Path | Requests | Trace | Graph | Problem | Step | Callable[..., Any], *,
    settings: Mapping[str, Any] | None = None, policies: Sequence[str] | None = None, capacity: int | None = None,
    advise: bool = False, static: bool = False, device: str = "cpu", steps: int = 2, progress: Progress | None = None,
) -> ReplayReport:  # fmt: skip
    """Each policy's reserved bytes, fragmentation, driver calls and smallest capacity for the same requests.

    >>> report = memfit.replay("trace.npz")                                            # doctest: +SKIP
    >>> [(row.key, row.fragmentation, row.smallest_capacity) for row in report.policies]   # doctest: +SKIP

    Args:
        target: a file (.npz trace, snapshot pickle, .csv, .json), ``file.py:function``, the function, a Step, Trace,
            Requests, Graph or Problem.
        settings: keyword arguments for the target's function.
        policies: names of ``memfit.allocators.replay.POLICIES``; left out, all.
        capacity: bytes that the allocator may reserve; left out with a GPU, what it has beside the driver.
        advise: also rank the settings of PYTORCH_ALLOC_CONF.
        static: also plan the same program, whole and where it repeats, and compare.
        device: "cpu" or a GPU of the device table.
        steps: of a target, how many to trace, >= 1; with ``static`` at least 4, so that iterations show.
        progress: called with (description, done, total).

    Raises:
        TraceError: a file that holds no events that a program can have made.
        CapacityError: the capacity is below the largest request.
        MemfitError: the target or the device cannot be used.
    Cost: about fourteen replays a policy, 20-100 ns an event each.
    """
    say = progress or (lambda text, done, total: None)
    begun = time.process_time()
    place = find_device(device)
    named = policies_named(policies)
    traced = max(steps, STATIC_STEPS) if static else steps
    found = requests_from(target, settings=settings, steps=traced, accelerator=place.kind == "gpu", say=say)
    requests = found.requests
    if policies is None and found.snapshot is not None and found.snapshot.settings != CachingSettings():
        named = {"torch-as-recorded": CachingPolicy(found.snapshot.settings), **named}
    sizes = requests.nbytes[requests.action == Action.ALLOCATE]
    if not len(sizes):
        raise TraceError(found.name, "it holds no allocation")
    largest = int(sizes.max())
    if capacity is None and place.kind == "gpu":
        capacity = place.room
    if capacity is not None and capacity < largest:
        block = int(np.argmax(sizes))
        who = requests.label[block] if block < len(requests.label) and requests.label[block] else f"allocation {block}"
        raise CapacityError(capacity, largest, (who,), found.name)
    results = compare(requests, named, capacity, say)
    advice: tuple[AdviceRow, ...] = ()
    if advise:
        say("trying the settings of torch's allocator", None, None)
        rows = advise_settings(requests, capacity).rows
        advice = tuple(AdviceRow(r.string, r.smallest_capacity, r.driver_calls, r.reserved, r.fits) for r in rows)
    check = None if found.snapshot is None else _checked(found.snapshot)
    compared = None
    if static:
        from memfit.api.static_against_dynamic import static_against_dynamic

        compared = static_against_dynamic(requests, results, say)
    notes = list(found.notes)
    if len(np.unique(requests.stream)) > 1:
        notes.append("several streams: only torch's policies keep a pool for each; the others share one")
    return ReplayReport(
        found.name, found.kind, place.name, len(requests), requests.blocks, results[0].unlimited.peak_live, largest,
        tuple(_row(result) for result in results), capacity, advice, check, compared, time.process_time() - begun,
        tuple(notes),
    )  # fmt: skip


def _row(result: Result) -> PolicyRow:
    series = result.unlimited.series
    assert series is not None
    there = result.at_capacity
    used = series.reserved > 0
    external = 1.0 - series.allocated[used] / series.reserved[used] if used.any() else np.zeros(1)
    return PolicyRow(
        result.key, result.policy.name, result.unlimited.peak_allocated, result.unlimited.peak_reserved,
        result.unlimited.fragmentation, result.internal, result.external, float(external.mean()),
        result.unlimited.driver_calls, result.smallest_capacity, result.tight.driver_calls, result.seconds_per_event,
        result.at_peak, _curve(series), result.unlimited.stranded, None if there is None else there.failed is None,
        None if there is None else there.failed, None if there is None else there.driver_calls,
    )  # fmt: skip


def _curve(series: ReplaySeries) -> Curve:
    """POINTS windows of events, of each the most of every column: peaks are never thinned away."""
    count = len(series.live)
    starts = np.unique(np.linspace(0, count, min(POINTS, count), endpoint=False).astype(np.int64))
    most = [np.maximum.reduceat(column, starts) for column in (series.live, series.allocated, series.reserved)]
    return Curve(starts, *most)


def _checked(snapshot: Snapshot) -> AddressCheck:
    found = check_addresses(snapshot)
    if found.first is None:
        return AddressCheck(found.checked, found.differing)
    first = found.first
    return AddressCheck(
        found.checked, found.differing,
        f"event {first.event}: recorded at {first.expected:#x}, replayed at {first.got:#x} ({first.rule})",
    )  # fmt: skip
