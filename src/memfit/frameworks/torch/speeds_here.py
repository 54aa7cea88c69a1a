"""What this machine reaches with the library's own kernels and its threads: the two limits of the roofline."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

_SIZE, _BYTES, _RUNS = 768, 192 << 20, 5


def float_operations() -> float:
    """float32 operations a second of a matrix product, the quickest of a few. Cost: about 0.1 s."""
    a, b = torch.rand(_SIZE, _SIZE), torch.rand(_SIZE, _SIZE)
    return 2.0 * _SIZE**3 / _quickest(lambda: torch.mm(a, b))


def memory_bandwidth() -> float:
    """Bytes a second that a sum over more than any cache reads, or a copy moves, whichever is more. Cost: about 0.5 s."""
    source = torch.zeros(_BYTES // 8)
    target = torch.zeros_like(source)
    copied = _BYTES / _quickest(lambda: target.copy_(source))
    read = source.numel() * 4 / _quickest(lambda: source.sum())
    return max(copied, read)


def threads() -> int:
    """Threads of one operation."""
    return torch.get_num_threads()


def _quickest(run: Callable[[], object]) -> float:
    run()
    best = float("inf")
    for _ in range(_RUNS):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best
