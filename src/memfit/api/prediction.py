"""`predict`: where every byte of a step goes, before it runs.

One trace on hollow tensors, then arithmetic on its events: the live peak, what the allocator would be asked for, what
it would reserve, what the process would hold, and whether that fits a device. For a GPU the same trace is used without
the scratch of CPU kernels, rounded and replayed as PyTorch's caching allocator would, with driver and libraries beside.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from memfit.allocators.caching import replay_caching
from memfit.analyses.timeline import Timeline, timeline
from memfit.api.largest_setting import largest_setting
from memfit.api.model_files import trace_of
from memfit.api.programs import ProgramSource, only_programs, program_source
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
        target: ``file.py:function``, the function itself, a Step that exists (neither read nor changed), or a model file.
            A step may be PyTorch's, JAX's or TensorFlow's.
        settings: keyword arguments for the function.
        device: "cpu" or a GPU of the device table; the program itself is traced as CPU code.
        budget: bytes that must hold the peak of what the allocator hands out (``peak.allocated``; on a GPU
            ``peak.reserved``); default: what the device has.
        find_batch: a setting of the function ("batch", "length"): the largest value of it that fits.
        steps: how many steps to trace, >= 1.
        bound: numbers for the open dimensions of a model file or of a JAX or TensorFlow step; ``find_batch`` may name one.
        progress: called with (description, done, total).

    Raises:
        MemfitError: the target cannot be used, is no program, or the device is unknown.

    Cost: see ``trace_step``; ``find_batch`` takes two or three more traces.
    """
    begun = time.perf_counter()
    place = find_device(device)
    say = progress or (lambda text, done, total: None)
    say("reading the program", None, None)
    source = program_source(target, settings)
    if source is not None:
        return _of_program(source, target, settings or {}, bound or {}, place, budget, find_batch, say, begun)
    only_programs(target, bound)
    from memfit.frameworks.torch.tape import trace_step

    build, name = step_builder(target, settings)

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


def _of_program(
    source: ProgramSource, target: Any, settings: Mapping[str, Any], bound: Mapping[str, int], place: Device,
    budget: int | None, find_batch: str | None, say: Progress, begun: float,
) -> MemoryReport:  # fmt: skip
    """One run of a model file, or one step of a JAX or TensorFlow function, from its graph alone."""
    numbers = dict(bound)
    of_dimension = find_batch is not None and find_batch in source.program.dimensions
    if find_batch is not None and of_dimension:
        numbers.setdefault(find_batch, 1)
    elif find_batch is not None and (not callable(target) and ":" not in Path(str(target)).name):
        dimensions = ", ".join(source.program.dimensions) or "none"
        raise TargetError(source.name, f"it has no open dimension {find_batch!r}", f"open: {dimensions}")

    def trace_at(made: ProgramSource, sizes: Mapping[str, int]) -> Trace:
        traced = made.traced(sizes, place.kind == "gpu") if made.traced is not None else None
        if traced is not None:
            return traced
        trace = trace_of(made.program, sizes)
        if made.compiled is None or place.kind != "cpu":
            return trace
        say("compiling the step", None, None)
        meta = {**trace.meta, "compiled": made.compiled(sizes), "compiled_live": timeline(trace).peak}
        return replace(trace, meta=meta)

    def trace_with(value: int) -> Trace:
        assert find_batch is not None
        if of_dimension:
            return trace_at(source, {**numbers, find_batch: value})
        again = program_source(target, {**settings, find_batch: value})
        assert again is not None
        return trace_at(again, numbers)

    trace = trace_at(source, numbers)
    say("adding up", None, None)
    found = assess(trace, place, budget, source.base)
    largest = None
    if find_batch is not None:
        current = numbers[find_batch] if of_dimension else _current(target, settings, find_batch)
        need = _need_of(found, place, budget, source.base)
        largest = largest_setting(find_batch, current, trace, trace_with, need, say)
    return _report(found, source.name, place, largest, time.perf_counter() - begun)


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
    handed_out = line.peak
    if "compiled" in trace.meta:  # a compiler lays the buffers out itself; other sizes in proportion to what is live
        handed_out = round(trace.meta["compiled"] * line.peak / max(1, trace.meta["compiled_live"]))
        expected = (base or 0) + handed_out
        low, high = (base or 0) * 3 // 4 + handed_out, expected + handed_out // 4 + (base or 0) // 4
    peak = Peak(line.peak, handed_out, handed_out, expected, {"resident": (low, high)})
    need = expected if budget is None else handed_out
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
        if "compiled" in trace.meta:
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
    if "compiled" in trace.meta:
        notes.append(
            "live: what the program's own order keeps; allocated, reserved: what XLA's buffer assignment takes for it, compiled"
        )
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
