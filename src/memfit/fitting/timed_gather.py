"""The proof for gathers: a C++ loop that copies rows out of a table, timed with the indices in one order and in another."""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from memfit.errors import VerifyError
from memfit.fitting.timed_kernel import Timed, compiled, in_turns

_SOURCE = """
extern "C" void gather(const float* __restrict table, float* __restrict out, const long* from, const long* to, long n, long w) {
  for (long l = 0; l < n; ++l)
    for (long c = 0; c < w; ++c) out[to[l] * w + c] = table[from[l] * w + c];
}
"""
Order = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def time_gathers(
    rows: int, width: int, orders: Sequence[Order], *, rounds: int = 9, budget: float = 4.0
) -> list[Timed]:
    """Time copies of ``rows`` x ``width`` float32 for each (rows read, rows written); all must give the same.

    Raises:
        MachineError: no compiler. VerifyError: an order gives something else.
    """
    table = np.random.default_rng(0).random((rows, width), np.float32)
    with tempfile.TemporaryDirectory(prefix="memfit-") as folder:
        function = compiled(_SOURCE, Path(folder)).gather
        function.restype = None
        outs = [np.zeros((len(read), width), np.float32) for read, _ in orders]

        def runner(number: int) -> float:
            read, write = orders[number]
            sizes = ctypes.c_long(len(read)), ctypes.c_long(width)
            given = [ctypes.c_void_p(a.ctypes.data) for a in (table, outs[number], read, write)]
            start = time.thread_time()
            function(*given, *sizes)
            return time.thread_time() - start

        once = [runner(number) for number in range(len(orders))]
        for out in outs[1:]:
            if not np.array_equal(out, outs[0]):
                raise VerifyError("gather", "the rows of the first order", "others")
        runs = [lambda number=number: runner(number) for number in range(len(orders))]
        return in_turns(runs, once, rounds=rounds, budget=budget)
