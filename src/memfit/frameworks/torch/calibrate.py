"""Measure on this machine what ops need inside, hold it against the scratch table, and refit what differs.

Each call of ``calibrate_designs`` runs for real; the allocator's events give its peak beyond what it leaves alive. An
op whose table entry misses a measurement by more than ``TOLERANCE`` of the op's peak gets new factors for its terms by
least squares, kept only if they miss less. Ops with formulas of their own (convolution, LSTM, attention) are reported,
not refitted. The refitted entries go to ``scratch.user_table_path()``, over the table that is shipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from memfit.errors import MemfitError
from memfit.frameworks.torch import allocator_hook, scratch
from memfit.frameworks.torch.calibrate_designs import Design, Invocation, designs
from memfit.frameworks.torch.scratch import scratch_bytes
from memfit.frameworks.torch.scratch_terms import TERMS, Call, tensors_of

TOLERANCE = 0.02
_BLOCK = 8192
Progress = Callable[[str, int | None, int | None], None]


@dataclass(frozen=True)
class Measured:
    """One call: bytes inside beyond what it leaves (``scratch``), bytes at its peak, and what was projected."""

    op: str
    shapes: tuple[tuple[int, ...], ...]
    scratch: int
    peak: int
    projected: int

    @property
    def error(self) -> float:
        """Projected minus measured, as a part of the op's peak; differences below 8 KiB count 0."""
        difference = self.projected - self.scratch
        return 0.0 if abs(difference) <= _BLOCK or not self.peak else difference / self.peak


def measure(call: Invocation) -> tuple[int, int, Any]:
    """Scratch and peak bytes of one real call beyond its inputs, and its result.

    Runs it twice: the first time creates what is cached (oneDNN primitives).
    """
    func, args, kwargs = call
    func(*args, **kwargs)
    if allocator_hook.is_available():
        with allocator_hook.installed():
            before = allocator_hook.live_bytes()
            allocator_hook.reset_peak()
            out = func(*args, **kwargs)
            peak, after = allocator_hook.peak_bytes() - before, allocator_hook.live_bytes() - before
        return peak - max(after, 0), peak, out
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        out = func(*args, **kwargs)
    kineto: Any = profile.profiler
    rows = [(e.start_ns(), e.nbytes()) for e in kineto.kineto_results.events() if e.name() == "[memory]"]
    steps = np.cumsum([0, *(nbytes for _, nbytes in sorted(rows, key=lambda row: row[0]))])
    peak, after = int(steps.max()), int(steps[-1])
    return peak - max(after, 0), peak, out


def measure_design(name: str, design: Design) -> tuple[Measured, Call]:
    """Run one call for real and hold the projection against it."""
    call = design()
    func, args, kwargs = call
    inside, peak, out = measure(call)
    tensors = tensors_of((args, kwargs))
    row = Measured(
        name, tuple(tuple(int(s) for s in t.shape) for t in tensors[:3]), inside, peak,
        scratch_bytes(func, args, kwargs, out),
    )  # fmt: skip
    return row, Call(name, args, kwargs, tensors, tensors_of(out))


def _refit(stages: list[dict[str, float]], rows: list[Measured], calls: list[Call]) -> list[dict[str, float]] | None:
    """New factors for the terms of an entry of one stage, None where they miss more than the old ones."""
    if len(stages) != 1:
        return None
    terms = sorted(stages[0])
    matrix = np.array([[TERMS[term](call) for term in terms] for call in calls], dtype=float)
    wanted = np.array([row.scratch for row in rows], dtype=float)
    factors = np.linalg.lstsq(matrix, wanted, rcond=None)[0].round(3)
    old = sum(abs(row.projected - row.scratch) for row in rows)
    new = float(np.abs(np.maximum(matrix @ factors, 0) - wanted).sum())
    if new >= old:
        return None
    return [{term: float(factor) for term, factor in zip(terms, factors, strict=True)}]


def calibrate(ops: list[str] | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Measure ``ops`` (default: all that have a design), write what had to be refitted, and return the table.

    Returns:
        ``ops``: per op its calls with ``shapes``, ``measured``, ``projected`` bytes and ``error`` (part of the op's
        peak); ``worst_error``; ``refitted``: names; ``path``: of the user's table, or None when nothing was written.

    Raises:
        MemfitError: an op has no design.

    Cost: 5-20 s of CPU and up to 100 MiB for all.
    """
    known = designs()
    asked = [name if name in known else f"{name}.default" for name in ops] if ops else list(known)
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise MemfitError(f"no calibration for {', '.join(unknown)}; there is one for {', '.join(sorted(known))}")
    table = scratch.table()["ops"]
    results: list[dict[str, Any]] = []
    refitted: dict[str, Any] = {}
    with torch.no_grad():
        for number, name in enumerate(asked):
            if progress is not None:
                progress(f"measuring {name}", number, len(asked))
            measured = [measure_design(name, design) for design in known[name]]
            rows, calls = [row for row, _ in measured], [call for _, call in measured]
            if name in table and any(abs(row.error) > TOLERANCE for row in rows):
                stages = _refit(table[name], rows, calls)
                if stages is not None:
                    refitted[name] = stages
            results.append({
                "op": name, "worst_error": max(abs(row.error) for row in rows),
                "calls": [
                    {"shapes": row.shapes, "measured": row.scratch, "projected": row.projected, "error": row.error}
                    for row in rows
                ],
            })  # fmt: skip
    path = _write(refitted) if refitted else None
    worst = max((row["worst_error"] for row in results), default=0.0)
    return {"ops": results, "worst_error": worst, "refitted": sorted(refitted), "path": path}


def _write(refitted: dict[str, Any]) -> str:
    path = scratch.user_table_path()
    kept: dict[str, Any] = {}
    if path.is_file():
        try:
            own = json.loads(path.read_text())
            kept = own["ops"] if own.get("torch") == torch.__version__ else {}
        except (OSError, ValueError, KeyError):
            kept = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"format": scratch.shipped_table()["format"], "torch": torch.__version__, "ops": {**kept, **refitted}}
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    scratch.table.cache_clear()
    return str(path)
