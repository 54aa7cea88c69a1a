"""What a loader of another library gains when freed memory is kept: two settings of glibc, measured, with their price.

A loader that makes a fresh batch each step pays the page faults of its memory each step. glibc gives large blocks back to
the system at once (``M_MMAP_THRESHOLD``) and cuts its heap (``M_TRIM_THRESHOLD``); raised, blocks are used again. The price
is private memory that stays: at most what the program had at its peak. Worker processes gain nothing: their batches come
through shared memory.
"""

from __future__ import annotations

import ctypes
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from memfit.errors import DataError
from memfit.machine.process import process_bytes
from memfit.units import parse_bytes

_TRIM, _MMAP = -1, -3
_LARGEST_MMAP = 1 << 30


@dataclass(frozen=True)
class Tuning:
    """Whether the settings are in force, what they may keep (bytes), and why not."""

    applied: bool
    threshold: int
    reason: str


def tune(cap: int | str = "1GiB") -> Tuning:
    """Let this process keep freed memory up to ``cap`` bytes for its next batch. Call it before loading starts.

    Returns whether it was done; not on other C libraries than glibc. Cost: two calls.
    """
    threshold = parse_bytes(cap)
    if platform.libc_ver()[0] != "glibc":
        return Tuning(False, threshold, "the C library is not glibc")
    libc = ctypes.CDLL(None)
    done = libc.mallopt(_MMAP, min(threshold, _LARGEST_MMAP)) and libc.mallopt(_TRIM, min(threshold, (1 << 31) - 1))
    return Tuning(bool(done), threshold, "" if done else "glibc refused the settings")


def untune() -> None:
    """Back to what glibc starts with, memory given back."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP, 128 << 10)
        libc.mallopt(_TRIM, 128 << 10)
        libc.malloc_trim(0)


@dataclass(frozen=True)
class Gain:
    """Seconds of an epoch before and after, and bytes of private memory that the settings cost, all measured."""

    before: float
    after: float
    price: int
    workers: int

    @property
    def factor(self) -> float:
        """How many times faster."""
        return self.before / self.after


def measure(make: Callable[[], Iterable[Any]], cap: int | str = "1GiB", workers: int = 0, rounds: int = 3) -> Gain:
    """Run the loader that ``make`` gives, untuned and tuned, the best of some rounds each.

    Raises:
        DataError: the settings cannot be made here.
    """

    def epoch() -> float:
        began = time.perf_counter()
        for _ in make():
            pass
        return time.perf_counter() - began

    untune()
    epoch()
    before = min(epoch() for _ in range(rounds))
    resident = process_bytes("RssAnon") or 0
    done = tune(cap)
    if not done.applied:
        raise DataError("memfit data tune", done.reason)
    epoch()
    after = min(epoch() for _ in range(rounds))
    return Gain(before, after, max(0, (process_bytes("RssAnon") or 0) - resident), workers)
