"""memfit: shows where every byte of an AI program goes, and fits the program into a byte budget, with proof.

The public names, no logic; each is imported on first use, so that ``import memfit`` imports no framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memfit.api.compressing import compress, load_compressed
    from memfit.api.fitted import fit
    from memfit.api.layouts import compare_layouts
    from memfit.api.leaks import leaks
    from memfit.api.linting import lint
    from memfit.api.locality import locality
    from memfit.api.machines import measure_machine
    from memfit.api.optimizing import optimize
    from memfit.api.paging import simulate_paging
    from memfit.api.planning import plan
    from memfit.api.pooling import pool
    from memfit.api.prediction import predict
    from memfit.api.profiling import profile
    from memfit.api.replaying import replay
    from memfit.api.running import paged, run
    from memfit.api.sweeping import sweep
    from memfit.api.tenants import domain, domains
    from memfit.api.watching import watch
    from memfit.errors import (
        BudgetError,
        CapacityError,
        CaptureError,
        DataError,
        DeviceError,
        DomainBudgetError,
        LeakError,
        LeverError,
        MachineError,
        MemfitError,
        MissingFrameworkError,
        NestError,
        OutputError,
        PoolError,
        PoolWarning,
        ProblemError,
        SegmentError,
        ServiceError,
        SizeError,
        TargetError,
        TraceError,
        VerifyError,
        WeightFileError,
    )
    from memfit.frameworks.torch.arena import arena
    from memfit.frameworks.torch.kv_cache import KVCache
    from memfit.ir.step import Step
    from memfit.ir.trace import Trace
    from memfit.runtime.segments import Segment, WeightSegment

__version__ = "0.1.0"

_WHERE = {
    "arena": "memfit.frameworks.torch.arena",
    "compare_layouts": "memfit.api.layouts",
    "domain": "memfit.api.tenants",
    "domains": "memfit.api.tenants",
    "Segment": "memfit.runtime.segments",
    "WeightSegment": "memfit.runtime.segments",
    "SegmentError": "memfit.errors",
    "DomainBudgetError": "memfit.errors",
    "compress": "memfit.api.compressing",
    "load_compressed": "memfit.api.compressing",
    "fit": "memfit.api.fitted",
    "lint": "memfit.api.linting",
    "optimize": "memfit.api.optimizing",
    "measure_machine": "memfit.api.machines",
    "locality": "memfit.api.locality",
    "leaks": "memfit.api.leaks",
    "watch": "memfit.api.watching",
    "plan": "memfit.api.planning",
    "pool": "memfit.api.pooling",
    "replay": "memfit.api.replaying",
    "simulate_paging": "memfit.api.paging",
    "sweep": "memfit.api.sweeping",
    "predict": "memfit.api.prediction",
    "profile": "memfit.api.profiling",
    "paged": "memfit.api.running",
    "run": "memfit.api.running",
    "KVCache": "memfit.frameworks.torch.kv_cache",
    "Step": "memfit.ir.step",
    "Trace": "memfit.ir.trace",
    "BudgetError": "memfit.errors",
    "CapacityError": "memfit.errors",
    "CaptureError": "memfit.errors",
    "DataError": "memfit.errors",
    "DeviceError": "memfit.errors",
    "LeakError": "memfit.errors",
    "LeverError": "memfit.errors",
    "MachineError": "memfit.errors",
    "NestError": "memfit.errors",
    "MemfitError": "memfit.errors",
    "MissingFrameworkError": "memfit.errors",
    "OutputError": "memfit.errors",
    "PoolError": "memfit.errors",
    "PoolWarning": "memfit.errors",
    "ProblemError": "memfit.errors",
    "ServiceError": "memfit.errors",
    "SizeError": "memfit.errors",
    "TargetError": "memfit.errors",
    "TraceError": "memfit.errors",
    "VerifyError": "memfit.errors",
    "WeightFileError": "memfit.errors",
}

_FOLDERS = ("data", "paging")
"""Packages whose own names are public: ``memfit.paging.faults``, ``memfit.data.Loader``."""

__all__ = [
    "BudgetError",
    "CapacityError",
    "CaptureError",
    "DataError",
    "DeviceError",
    "DomainBudgetError",
    "KVCache",
    "LeakError",
    "LeverError",
    "MachineError",
    "MemfitError",
    "MissingFrameworkError",
    "NestError",
    "OutputError",
    "PoolError",
    "PoolWarning",
    "ProblemError",
    "Segment",
    "SegmentError",
    "ServiceError",
    "SizeError",
    "Step",
    "TargetError",
    "Trace",
    "TraceError",
    "VerifyError",
    "WeightFileError",
    "WeightSegment",
    "arena",
    "compare_layouts",
    "compress",
    "domain",
    "domains",
    "fit",
    "leaks",
    "lint",
    "load_compressed",
    "locality",
    "measure_machine",
    "optimize",
    "paged",
    "plan",
    "pool",
    "predict",
    "profile",
    "replay",
    "run",
    "simulate_paging",
    "sweep",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    if name in _FOLDERS:
        return importlib.import_module(f"memfit.{name}")
    raise AttributeError(f"module 'memfit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
