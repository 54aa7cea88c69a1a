"""`predict`: where every byte of a step goes, before it runs.

One trace on hollow tensors, then arithmetic on its events: the live peak, what the allocator would be asked for, what
it would reserve, what the process would hold, and whether that fits a device. For a GPU the same trace is used without
the scratch of CPU kernels, rounded and replayed as PyTorch's caching allocator would, with driver and libraries beside.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memfit.allocators.caching import replay_caching
from memfit.analyses.timeline import Timeline, timeline
from memfit.api.largest_setting import largest_setting
from memfit.api.model_files import (
    PROCESS_BYTES,
    is_model_file,
    no_settings,
    only_model_files,
    program_of,
    trace_of,
)
from memfit.errors import TargetError, target_named
from memfit.ir.step import Step
from memfit.ir.trace import Category, Trace
from memfit.machine.devices import Device, find_device
from memfit.report.summary import AliveTensor, MemoryReport, Moment, Peak

Progress = Callable[[str, int | None, int | None], None]
_ALIVE_SHOWN = 50
_RESIDENT_PER_LIVE = 1.1


@dataclass(frozen=True)
class Assessment:
    """What a trace needs on a device. ``need``: the bytes held against ``capacity``."""

    trace: Trace
    timeline: Timeline
    peak: Peak
    need: int
    capacity: int
    fits: bool
    outside: int


def predict(
    target: str | Step | Callable[..., Any], *, settings: Mapping[str, Any] | None = None, device: str = "cpu",
    budget: int | None = None, find_batch: str | None = None, steps: int = 2, bound: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> MemoryReport:  # fmt: skip
    """The projected memory of a program.

    Args:
        target: ``file.py:function``, the function itself, or a Step that exists (neither read nor changed).
        settings: keyword arguments for the function.
        device: "cpu" or a GPU of the device table; the program itself is traced as CPU code.
        budget: bytes that must hold the peak of what the allocator hands out (``peak.allocated``; on a GPU
            ``peak.reserved``); default: what the device has.
        find_batch: a setting of the function ("batch", "length"): the largest value of it that fits.
        steps: how many steps to trace, >= 1.
        bound: numbers for the open dimensions of a model file; ``find_batch`` then names such a dimension.
        progress: called with (description, done, total).

    Raises:
        MemfitError: the target cannot be used, is no program, or the device is unknown.

    Cost: see ``trace_step``; ``find_batch`` takes two or three more traces.
    """
    begun = time.perf_counter()
    place = find_device(device)
    only_model_files(target, bound)
    if is_model_file(target):
        no_settings(target, settings)
        return _of_model_file(str(target), bound or {}, place, budget, find_batch, progress, begun)
    from memfit.frameworks.torch.tape import trace_step

    build, name = step_builder(target, settings)
    say = progress or (lambda text, done, total: None)

    def trace_at(extra: Mapping[str, Any]) -> Trace:
        with target_named(name):
            if isinstance(target, Step):
                return trace_step(target, steps=steps, accelerator=place.kind == "gpu")
            return trace_step(lambda: build(extra), steps=steps, accelerator=place.kind == "gpu")

    say("tracing the step", None, None)
    trace = trace_at({})
    say("adding up", None, None)
    found = assess(trace, place, budget)
    largest = None
    if find_batch is not None:
        largest = largest_setting(
            find_batch, _current(target, settings, find_batch), trace, lambda value: trace_at({find_batch: value}),
            _need_of(found, place, budget), say,
        )  # fmt: skip
    return _report(found, name, place, largest, time.perf_counter() - begun)


def _of_model_file(
    target: str, bound: Mapping[str, int], place: Device, budget: int | None, find_batch: str | None,
    progress: Progress | None, begun: float,
) -> MemoryReport:  # fmt: skip
    """One run of a model file, from its graph alone."""
    say = progress or (lambda text, done, total: None)
    say("reading the model", None, None)
    program = program_of(target)
    base = PROCESS_BYTES[Path(target).suffix.lower()]
    numbers = dict(bound)
    if find_batch is not None:
        if find_batch not in program.dimensions:
            raise TargetError(
                target, f"it has no open dimension {find_batch!r}", f"open: {', '.join(program.dimensions) or 'none'}"
            )
        numbers.setdefault(find_batch, 1)
    trace = trace_of(program, numbers)
    say("adding up", None, None)
    found = assess(trace, place, budget, base)
    largest = None
    if find_batch is not None:
        largest = largest_setting(
            find_batch, numbers[find_batch], trace, lambda value: trace_of(program, {**numbers, find_batch: value}),
            _need_of(found, place, budget, base), say,
        )  # fmt: skip
    return _report(found, target, place, largest, time.perf_counter() - begun)


def assess(trace: Trace, device: Device, budget: int | None = None, base: int | None = None) -> Assessment:
    """What a CPU trace needs on ``device``, and whether it fits there or within ``budget`` (bytes).

    ``base``: resident bytes of the process before the program; left out, of one that imports PyTorch.
    """
    if device.kind == "gpu":
        trace = on_accelerator(trace)
    line = timeline(trace)
    if device.kind == "gpu":
        events = list(zip(trace.storage.tolist(), trace.delta.tolist(), strict=True))
        low, expected, high = device.context
        capacity = device.memory - expected - device.workspace if budget is None else budget
        replay = replay_caching(events)
        reserved = replay.peak_reserved + device.workspace
        fits = reserved <= device.memory - expected if budget is None else reserved <= budget
        if not fits:  # cached blocks are given back before memory runs out
            fits = replay_caching(events, max(0, capacity - (0 if budget is None else device.workspace))).failed is None
        peak = Peak(
            line.peak,
            replay.peak_allocated,
            reserved,
            reserved + expected,
            {"resident": (reserved + low, reserved + high)},
        )
        return Assessment(
            trace,
            line,
            peak,
            reserved,
            capacity + (device.workspace if budget is None else 0),
            fits,
            expected + device.workspace,
        )
    low, expected, high = _resident(trace, line.peak, base)
    peak = Peak(line.peak, line.peak, line.peak, expected, {"resident": (low, high)})
    need = expected if budget is None else line.peak
    capacity = device.memory if budget is None else budget
    return Assessment(trace, line, peak, need, capacity, need <= capacity, 0)


def on_accelerator(trace: Trace) -> Trace:
    """The trace without the scratch of CPU kernels (storages without a dtype)."""
    scratch = np.array([not storage.dtype for storage in trace.storages], dtype=bool)
    keep = ~scratch[trace.storage] if len(trace.storages) else np.zeros(0, dtype=bool)
    return Trace(
        trace.kind, trace.ops, trace.storages, trace.storage[keep], trace.delta[keep], trace.op[keep], None, trace.meta
    )


def _need_of(
    first: Assessment, device: Device, budget: int | None, base: int | None = None
) -> Callable[[Trace], tuple[int, bool]]:
    """What other sizes of the program need; on a CPU without a budget, resident bytes by growth of live ones."""

    def need(trace: Trace) -> tuple[int, bool]:
        if device.kind == "gpu" or budget is not None:
            found = assess(trace, device, budget, base)
            return found.need, found.fits
        growth = max(0, timeline(trace).peak - first.peak.live)
        nbytes = first.peak.resident + int(growth * _RESIDENT_PER_LIVE)
        return nbytes, nbytes <= first.capacity

    return need


def _resident(trace: Trace, peak: int, base: int | None) -> tuple[int, int, int]:
    try:
        from memfit.allocators.resident import predict_resident
    except ImportError:
        return peak, peak, peak
    low, expected, high = predict_resident(trace, base=base)
    return int(low), int(expected), int(high)


def step_builder(target: Any, settings: Mapping[str, Any] | None) -> tuple[Callable[[Mapping[str, Any]], Step], str]:
    """A function that makes the target's Step with further settings, and what a report calls the target."""
    from memfit.frameworks.target import load_function, step_of

    if isinstance(target, Step):
        if settings:
            raise TargetError("step", "a Step that exists takes no settings", "pass the function that makes it")
        return (lambda extra: target), type(target.model).__name__
    function = load_function(target) if isinstance(target, str) else target
    name = target if isinstance(target, str) else getattr(function, "__name__", type(function).__name__)
    return (lambda extra: step_of(function, name, {**(settings or {}), **extra})), name


def _current(target: Any, settings: Mapping[str, Any] | None, setting: str) -> int:
    """The value that a setting has now: given, or the function's default."""
    import inspect

    from memfit.frameworks.target import load_function

    if isinstance(target, Step):
        raise TargetError(
            "step", f"the largest {setting!r} needs a function of {setting!r}", "pass the function that makes the Step"
        )
    name = target if isinstance(target, str) else getattr(target, "__name__", "target")
    value = (settings or {}).get(setting)
    if value is None:
        parameters = inspect.signature(load_function(target) if isinstance(target, str) else target).parameters
        if setting not in parameters:
            raise TargetError(name, f"it has no setting {setting!r}", f"settings: {', '.join(parameters) or 'none'}")
        value = parameters[setting].default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise TargetError(
            name, f"the setting {setting!r} is {value!r}, not a whole number >= 1", f"give one with --set {setting}=1"
        )
    return value


def _report(
    found: Assessment, name: str, device: Device, largest: dict[str, Any] | None, seconds: float
) -> MemoryReport:
    trace, line = found.trace, found.timeline
    op = line.peak_op
    categories = line.categories
    if device.kind == "gpu":
        categories[Category.OUTSIDE.value] = found.outside
    alive = []
    for index in line.alive()[:_ALIVE_SHOWN]:
        storage = trace.storages[index]
        maker = trace.ops[storage.op]
        alive.append(
            AliveTensor(
                storage.nbytes,
                storage.category.value,
                storage.shape,
                storage.dtype,
                storage.label,
                maker.module,
                maker.line,
                maker.name,
            )
        )
    at = Moment(op.step, op.name, op.module, op.line, op.phase) if op is not None else Moment(0, "", "", "")
    notes = list(trace.meta.get("notes", ()))
    if device.kind == "gpu":
        notes.append("a GPU that is not here: workspaces of convolution libraries are not part of the projection")
    return MemoryReport(
        "projected", name, device.name, found.peak, categories, at, tuple(alive), seconds, line, found.fits,
        found.capacity,
        largest, tuple(notes), {"steady_peak": _steady_peak(line)},
    )  # fmt: skip


def _steady_peak(line: Timeline) -> int:
    """Peak live bytes within the last step: what every later step needs."""
    trace = line.trace
    if not len(trace):
        return 0
    step_of_op = np.array([op.step for op in trace.ops])
    last = step_of_op[trace.op] == step_of_op.max()
    return int(line.live[last].max()) if last.any() else line.peak
