"""Resident memory of a process that runs a trace: what malloc keeps beyond the live bytes, and what lies outside.

    peak resident = base (interpreter, framework, packages)  +  heap and mappings of malloc  +  code touched by the run

The middle term is a replay through the real C library (``glibc_replay``); where it is another library, or the trace is
larger than the addresses that the system gives, live bytes with the usual overhead stand in, and the interval says so.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit.allocators import glibc_replay
from memfit.ir.trace import Trace
from memfit.machine import process

_PHASES = {
    "build": glibc_replay.BUILD, "forward": glibc_replay.FORWARD, "backward": glibc_replay.BACKWARD,
    "optimizer": glibc_replay.OPTIMIZER,
}  # fmt: skip
_VARIANTS = ((10_000, 9), (60_000, 5), (1 << 62, 1))
_SECONDS = 120


def heap_peaks(trace: Trace) -> list[int] | None:
    """Peak resident bytes of malloc's heap and mappings under ``trace``, one figure per variant, ascending.

    None where this system's C library is not glibc, or refuses the sizes. Cost: about 20 us an event; nine variants
    up to 10 thousand events, five up to 60 thousand, then one.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return None
    seen: set[str] = set()
    is_new = []
    for op in trace.ops:
        is_new.append(op.name not in seen and op.phase != "build")
        if op.phase != "build":
            seen.add(op.name)
    wide: list[npt.NDArray[Any]] = [
        np.ascontiguousarray(column, dtype=np.int64) for column in (trace.storage, trace.delta, trace.op)
    ]
    narrow: list[npt.NDArray[Any]] = [
        np.array([_PHASES.get(op.phase, glibc_replay.BETWEEN) for op in trace.ops], dtype=np.int8),
        np.array([op.step for op in trace.ops], dtype=np.int32),
        np.array(is_new, dtype=np.int8),
    ]
    codes = ["q", "q", "q", "b", "i", "b"]
    columns = [*wide, *narrow]
    header = {
        "columns": [(len(column), code) for column, code in zip(columns, codes, strict=True)],
        "variants": next(count for limit, count in _VARIANTS if len(trace) <= limit),
    }
    payload = json.dumps(header).encode() + b"\n" + b"".join(column.tobytes() for column in columns)
    script = str(Path(glibc_replay.__file__))
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-s", "-S", script],
            input=payload,
            capture_output=True,
            timeout=_SECONDS,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        answers = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    peaks = sorted(int(answer[0]) for answer in answers if answer is not None)
    return peaks or None


def outside_bytes(trace: Trace) -> int:
    """Code pages, tables and generated code that the run touches first, beside malloc."""
    phases = {op.phase for op in trace.ops}
    total = process.WARM_INFERENCE
    if phases & {"backward", "optimizer"}:
        total += process.WARM_TRAINING
    if any("convolution" in op.name for op in trace.ops):
        total += process.WARM_CONVOLUTION
    return total


def predict_resident(trace: Trace, *, base: int | None = None) -> tuple[int, int, int]:
    """Low, expected and high peak resident bytes (VmHWM) of a process that runs ``trace``.

    Args:
        trace: from construction on, so that what building leaves behind counts.
        base: resident bytes before the program's first tensor; None: of a fresh process with the packages that are
            imported here.

    Cost: as ``heap_peaks``.
    """
    optimizer = any(op.phase == "optimizer" for op in trace.ops)
    if base is None:
        base = process.base_bytes(optimizer=optimizer)
    outside = base + outside_bytes(trace)
    live = int(np.cumsum(trace.delta).max()) if len(trace) else 0
    peaks = heap_peaks(trace) if live else [0]
    if peaks is None:
        return base + live, outside + int(1.15 * live), outside + int(1.5 * live)
    expected = peaks[5 * (len(peaks) - 1) // 8]
    low = base + (live + max(live, peaks[0])) // 2
    spread = max(peaks[-1] - peaks[0], expected // 8) + outside_bytes(trace)
    return low, outside + expected, outside + peaks[-1] + spread // 2
