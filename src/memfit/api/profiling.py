"""`profile`: run a step, or a whole script, and say where every byte went, from the allocator's own events.

Three meters are read and reconciled: the *tape* (sum of the storages whose use is known), the *allocator* (every block
that the framework asked for) and the *resident* peak of the process; what no band explains is shown as unexplained.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from memfit.analyses.timeline import Timeline, timeline
from memfit.errors import DeviceError, MemfitError, MissingFrameworkError, TargetError, target_named
from memfit.frameworks.target import build_step
from memfit.ir.step import Step, as_step
from memfit.observe.compare import compare as compare_traces
from memfit.observe.growth import growth_of
from memfit.observe.operations import Words
from memfit.observe.recorder import trace_of
from memfit.observe.resident import Resident, bands, read_resident, reset_resident_peak
from memfit.report.summary import AliveTensor, MemoryReport, Moment, Peak

if TYPE_CHECKING:
    from memfit.frameworks.torch.run_recorder import RecordedRun

Progress = Callable[[str, int | None, int | None], None]
_ALIVE_LISTED = 200


def profile(
    target: str | Step | tuple[Any, ...] | Mapping[str, Any], *, settings: Mapping[str, Any] | None = None,
    steps: int = 3, compare: bool = False, stacks: bool = False, device: str = "cpu", arguments: Sequence[str] = (),
    progress: Progress | None = None,
) -> MemoryReport:  # fmt: skip
    """Run a step ``steps`` times, or a script once, and measure where every byte goes.

    Args:
        target: ``file.py:function``, ``package.module:function``, a Step (or its tuple and dict forms), or a plain
            ``script.py``, which is run as ``python script.py`` would run it; its steps are those of its optimizer.
        settings: keyword arguments for the target's function.
        steps: how often the step runs, >= 1; a script decides itself.
        compare: hold the projection of the same target against the measurement (not for a script).
        stacks: keep module and line of the allocations of every step; otherwise of the first three and of any step that
            allocates differently, which costs less.
        device: ``cpu``, or ``cuda`` / ``cuda:1`` where there is one.
        arguments: command line of a script.
        progress: called with a text, and how much of what is done.

    Returns:
        a measured report. ``peak.live``: all tensors; ``allocated``: bytes asked of the framework's allocator;
        ``reserved``: what malloc had asked of the system for this run (CUDA: the caching allocator); ``resident``: the
        peak of the whole process.

    Raises:
        TargetError: no such target, or it raises; DeviceError: no such device here.
    Cost: the run itself, with 1.05 times its CPU time in a long run; the explanation takes about 10 us an event.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingFrameworkError("torch", "torch")
    if steps < 1:
        raise TargetError(str(target), f"steps={steps}", "run at least one step")
    report = progress or (lambda text, done, total: None)
    name = target if isinstance(target, str) else type(getattr(target, "model", target)).__name__
    is_script = isinstance(target, str) and target.endswith(".py")
    _check_device(device)
    if is_script and compare:
        raise TargetError(
            name, "a script cannot be compared", "compare needs file.py:function, whose step can be projected"
        )
    if arguments and not is_script:
        raise TargetError(
            name, f"it takes no arguments ({' '.join(arguments)})", "only a script.py does; use --set name=value"
        )
    began = time.perf_counter()
    build = _builder(target, name, settings)
    if device.startswith("cuda"):
        from memfit.frameworks.torch.cuda_recorder import record_cuda_steps

        run, alone = _run(lambda: record_cuda_steps(build, steps, device=device, report=_counter(report, steps)), name)
    elif is_script:
        from memfit.frameworks.torch.script_run import record_script

        assert isinstance(target, str)
        run, alone = _run(
            lambda: record_script(target, arguments, every_step=stacks, report=_counter(report, None)), name
        )
    else:
        from memfit.frameworks.torch.run_recorder import record_steps

        run, alone = _run(lambda: record_steps(build, steps, every_step=stacks, report=_counter(report, steps)), name)
    resident = read_resident()
    report("explaining the events", None, None)
    measured = timeline(trace_of(run.recording, run.known, _words(run), _meta(name, device)))
    result = _report(name, device, measured, run, resident, alone, time.perf_counter() - began)
    if compare:
        report("projecting the same steps", None, None)
        result = _compared(result, build, len(run.step_peaks))
    return result


def _builder(target: Any, name: str, settings: Mapping[str, Any] | None) -> Callable[[], Step]:
    if isinstance(target, str):
        return lambda: build_step(target, settings)
    return lambda: as_step(target, name)


def _counter(report: Progress, total: int | None) -> Callable[[int], None]:
    return lambda number: report(f"step {number}", number, total)


def _check_device(device: str) -> None:
    kind, _, number = device.partition(":")
    if kind == "cpu" and not number:
        return
    if kind != "cuda" or (number and not number.isdigit()):
        raise DeviceError(
            device, "profile measures on this machine: cpu, or cuda where there is one; predict tells for others"
        )
    from memfit.frameworks.torch.devices_here import cuda_devices

    count = cuda_devices()
    if not count:
        raise DeviceError(device, "there is no CUDA device here; predict tells for a GPU that is not here")
    if number and int(number) >= count:
        raise DeviceError(device, f"there are {count} CUDA devices here")


def _run(record: Callable[[], RecordedRun], name: str) -> tuple[RecordedRun, bool]:
    """The recorded run, and whether the resident peak is of this run alone."""
    from memfit.frameworks.torch import allocator_hook

    allocator_hook.is_available()  # built before memory is looked at
    alone = reset_resident_peak()
    try:
        with target_named(name):
            return record(), alone
    except MemfitError:
        raise
    except Exception as error:
        from memfit.frameworks.torch.operation_words import place_of_error

        where = place_of_error(error)
        raise TargetError(
            name, f"its step raises {type(error).__name__}: {error}" + (f" at {where}" if where else ""),
            "run it alone to see its traceback",
        ) from error  # fmt: skip


def _words(run: RecordedRun) -> Words:
    from memfit.frameworks.torch import operation_words as words

    return Words(run.modules, words.is_composite, words.is_optimizer, words.op_name, words.place)


def _meta(name: str, device: str) -> dict[str, Any]:
    return {"target": name, "device": device, "torch": version("torch")}


def _report(
    name: str, device: str, measured: Timeline, run: RecordedRun, resident: Resident, alone: bool, seconds: float
) -> MemoryReport:
    growth = growth_of(run.step_ends)
    from_system = sum(max(0, run.fullest[part] - run.before[part]) for part in ("arena", "mapped"))
    reserved = max(from_system, run.peak) if run.reserved is None else run.reserved
    found = bands(run.before, run.fullest, resident.peak, run.recorder_bytes, alone=alone)
    extra: dict[str, Any] = {
        "growth": growth.to_json(),
        "steps": len(run.step_peaks),
        "step_seconds": run.seconds,
        "reconciliation": _reconciliation(measured, run, found),
    }
    if run.step_peaks:
        extra["first_step_peak"] = run.step_peaks[0]
    if len(run.step_peaks) > 1:
        extra["steady_peak"] = max(run.step_peaks[1:])
    op = measured.peak_op
    at = Moment(op.step, op.name, op.module, op.line, op.phase) if op else Moment(0, "", "", "")
    return MemoryReport(
        "measured", name, device, Peak(measured.peak, run.peak, reserved, resident.peak),
        measured.categories, at, _alive(measured), seconds, measured,
        notes=_notes(run, growth.growing, alone), extra=extra,
    )  # fmt: skip


def _alive(measured: Timeline) -> tuple[AliveTensor, ...]:
    trace = measured.trace
    rows = ((trace.storages[index], trace.ops[trace.storages[index].op]) for index in measured.alive()[:_ALIVE_LISTED])
    return tuple(
        AliveTensor(s.nbytes, s.category.value, s.shape, s.dtype, s.label, op.module, op.line, op.name)
        for s, op in rows
    )


def _reconciliation(measured: Timeline, run: RecordedRun, found: Mapping[str, int]) -> dict[str, Any]:
    """The three meters, the bands of the resident growth, and the shares of both that are named."""
    total = sum(found.values())
    named = _named_bytes(measured)
    unexplained = found["unexplained"]
    return {
        "tape": measured.peak,
        "allocator": run.peak,
        "resident": total,
        **{band: nbytes for band, nbytes in found.items() if nbytes or band == "unexplained"},
        "percent": {
            "allocator_named": 100.0 * named / measured.peak if measured.peak else 100.0,
            "resident_unexplained": 100.0 * unexplained / total if total else 0.0,
        },
    }


def _named_bytes(measured: Timeline) -> int:
    """Bytes at the live peak whose use is known: they have a label, or an op that made them in a known phase."""
    trace = measured.trace
    rows = (trace.storages[index] for index in measured.alive())
    return sum(row.nbytes for row in rows if row.label or row.shape or trace.ops[row.op].name != "python")


def _notes(run: RecordedRun, growing: bool | None, alone: bool) -> tuple[str, ...]:
    notes = list(run.notes)
    if growing:
        notes.append(
            "live bytes grow from step to step: something keeps tensors of earlier steps (memfit leaks finds what)"
        )
    if run.recording.source == "profiler":
        notes.append("no C++ compiler: events come from torch's own profiler, which costs about 1.3 times the time")
    if not alone:
        notes.append("the resident peak is that of the process since it began: this system does not let it start anew")
    return tuple(notes)


def _compared(result: MemoryReport, build: Callable[[], Step], steps: int) -> MemoryReport:
    from dataclasses import replace

    from memfit.frameworks.torch.tape import trace_step

    assert result.timeline is not None
    with target_named(result.target):
        projected = timeline(trace_step(build, steps=steps))
    comparison = compare_traces(projected.trace, result.timeline.trace)
    return replace(result, projected=projected, extra={**result.extra, "compare": comparison.to_json()})
