"""``memfit.sweep``: one prediction for every combination of settings, and which of them fit; over processes or a cluster.

    batch=1,2,4 x seq=512,1024   ->   six predictions, each in a process that keeps the frameworks it imported

A name that is an open dimension of a model file is bound, any other is a keyword argument of the target's function. A
combination that raises is a row that says why. Cost: one prediction a combination, divided by the processes.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

from memfit.errors import MemfitError, MissingFrameworkError, TargetError
from memfit.machine.devices import find_device
from memfit.report.sweep_summary import SweepPoint, SweepReport

Progress = Callable[[str, int | None, int | None], None]
MOST = 10_000
"""Combinations that one sweep may have."""
_ALONE = threading.Lock()


def sweep(
    target: str, values: Mapping[str, Sequence[Any]], *, settings: Mapping[str, Any] | None = None,
    bound: Mapping[str, int] | None = None, device: str = "cpu", budget: int | None = None, processes: int | None = None,
    cluster: str | None = None, progress: Progress | None = None,
) -> SweepReport:  # fmt: skip
    """The projected peak at every combination of ``values``.

    Args:
        target: ``file.py:function`` or a model file.
        values: name -> the values it takes.
        settings, bound, device, budget: as for ``predict``.
        processes: how many at once, >= 1; default: one a core.
        cluster: address of a dask scheduler that works instead; its workers must find the target and memfit.
        progress: called with (description, done, total).

    Raises:
        DeviceError: no such device; TargetError: too many combinations, or every one of them fails.
        MissingFrameworkError: ``cluster`` without dask.
    """
    place = find_device(device)
    count = math.prod(len(row) for row in values.values())
    if not 0 < count <= MOST:
        raise TargetError(target, f"the sweep has {count} combinations, and 1 to {MOST} are possible", "sweep fewer")
    names = list(values)
    grid = [dict(zip(names, row, strict=True)) for row in itertools.product(*values.values())]
    request = {
        "target": target,
        "settings": dict(settings or {}),
        "bound": dict(bound or {}),
        "device": device,
        "budget": budget,
    }
    say = progress or (lambda text, done, total: None)
    say("predicting", 0, count)
    points: list[SweepPoint | None] = [None] * count
    with _executor(cluster, min(count, processes or os.cpu_count() or 1)) as executor:
        ask = one if cluster is None else one_on_a_worker
        waiting = {executor.submit(ask, {**request, "values": row}): index for index, row in enumerate(grid)}
        for done, future in enumerate(as_completed(waiting), 1):
            points[waiting[future]] = SweepPoint(**future.result())
            say("predicting", done, count)
    made = tuple(point for point in points if point is not None)
    if all(point.error for point in made):
        raise TargetError(target, f"no combination can be predicted; the first: {made[0].error}")
    capacity = next(point.capacity for point in made if not point.error)
    held = (
        "reserved" if place.kind == "gpu" else "resident" if budget is None else "allocated"
    )  # as ``assess`` compares
    return SweepReport(target, place.name, capacity, {name: tuple(row) for name, row in values.items()}, made, held)


def _executor(cluster: str | None, processes: int) -> Executor:
    if cluster is None:  # fresh processes: a fork of one that has threads of a framework may hang
        return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingFrameworkError("distributed", "dask") from error
    try:
        client = Client(cluster, timeout="10s")
    except (OSError, ValueError, TypeError) as error:
        raise TargetError(
            cluster, f"no dask scheduler answers there ({error})", "write its address, tcp://host:8786"
        ) from error
    executor: Executor = client.get_executor()
    return executor


def one(request: Mapping[str, Any]) -> dict[str, Any]:
    """One combination: what ``SweepPoint`` takes. It raises nothing, so that one that fails is a row."""
    from memfit.api.prediction import predict

    values, bound, settings = request["values"], dict(request["bound"]), dict(request["settings"])
    dimensions = _dimensions(request["target"])
    for name, value in values.items():
        (bound if name in dimensions else settings)[name] = value
    try:
        report = predict(
            request["target"], settings=settings, bound=bound, device=request["device"], budget=request["budget"]
        )
    except MemfitError as error:
        return {"values": dict(values), "error": str(error)}
    peak = report.peak
    return {
        "values": dict(values), "live": peak.live, "allocated": peak.allocated, "reserved": peak.reserved,
        "resident": peak.resident, "fits": bool(report.fits), "capacity": report.capacity or 0,
    }  # fmt: skip


def one_on_a_worker(request: Mapping[str, Any]) -> dict[str, Any]:
    """``one`` on a worker of a cluster: one at a time, and out of sight of the worker's profiler.

    That reads the frames of running threads a hundred times a second, and as long as it holds one, what the frame holds is
    alive: a tensor that dies late raises the peak.
    """
    with _ALONE, _not_profiled():
        return one(request)


@contextmanager
def _not_profiled() -> Iterator[None]:
    from distributed import get_worker

    worker = get_worker()
    profiler = worker.periodic_callbacks.get("profile")
    if profiler is None:
        yield
        return

    def tell(action: Callable[[], None]) -> None:
        done = threading.Event()

        def act() -> None:
            action()
            done.set()

        worker.loop.add_callback(act)
        done.wait(5)

    tell(profiler.stop)
    try:
        yield
    finally:
        tell(profiler.start)


def _dimensions(target: str) -> frozenset[str]:
    from memfit.api import model_files

    if not model_files.is_model_file(target):
        return frozenset()
    return frozenset(model_files.program_of(target).dimensions)
