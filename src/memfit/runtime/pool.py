"""The CPU pool in this process: NumPy's arrays from it, its settings. The pool itself is C++ (``native/core/pool.h``).

NumPy lets a program name who allocates arrays (NEP 49); it keeps that name for each thread (each *context*) apart, so
threads that Python starts later are told too. An array keeps who made it, and is freed by it, whatever is set by then.
Frameworks with an allocator of their own ask ``functions`` (see ``frameworks/torch/pool_allocator``).
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from memfit import _core

NEVER = -1
"""For ``give_back_after``: pages once used are kept."""

_serving_arrays = False
_threads_told = False
_before: Any = None


def set_active(active: bool) -> None:
    """Whether new blocks come from the pool, or from malloc. Blocks of both may be freed at any time."""
    _core.pool_activate(active)


def settings(give_back_after: int, planning: bool) -> None:
    """``give_back_after``: seconds that a page stays unused before it goes back to the system, or NEVER."""
    _core.pool_settings(give_back_after, planning)


def figures() -> dict[str, int]:
    """What the pool holds and did, by name. Cost: microseconds."""
    return _core.pool_figures()


def functions() -> tuple[int, int, int]:
    """Addresses of the pool's allocate, release and size functions, for allocators in C++."""
    return _core.pool_functions()


def trim() -> int:
    """Give all free memory back to the system now; returns the bytes."""
    return _core.pool_trim()


def end_step() -> None:
    """Say that a step of the program ends here."""
    _core.pool_step()


def serve_arrays() -> None:
    """From now on arrays of this thread, and of threads that Python starts later, come from the pool."""
    global _serving_arrays, _threads_told, _before
    _before = _core.set_array_handler(_table(), _core.pool_array_handler())
    _serving_arrays = True
    if not _threads_told:
        _tell_threads()
        _threads_told = True


def stop_serving_arrays() -> None:
    """Put back who allocated arrays before ``serve_arrays``; living arrays stay as they are."""
    global _serving_arrays
    if _serving_arrays:
        _core.set_array_handler(_table(), _before)
    _serving_arrays = False


def serves(array: np.ndarray[Any, Any]) -> bool:
    """Whether the pool made this array's memory, small or large."""
    named = getattr(_multiarray(), "get_handler_name", None)
    return named is not None and named(array) == "memfit_pool"


def _multiarray() -> Any:
    try:
        from numpy._core import multiarray
    except ImportError:  # before NumPy 2
        from numpy.core import multiarray  # type: ignore[no-redef]
    return multiarray


def _table() -> Any:
    return _multiarray()._ARRAY_API


def _tell_threads() -> None:
    """Let every thread that Python starts from now on have its arrays from the pool, while it is installed."""
    original = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    def bootstrap(self: threading.Thread) -> None:
        if _serving_arrays:
            _core.set_array_handler(_table(), _core.pool_array_handler())
        original(self)

    threading.Thread._bootstrap_inner = bootstrap  # type: ignore[attr-defined]
