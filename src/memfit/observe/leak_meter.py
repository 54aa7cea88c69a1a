"""How much this process holds now, cheaply enough to ask at every step: what malloc handed out, Python's small blocks,
the resident size, and what worker processes hold.

``heap`` is malloc's own account of bytes in use (glibc's ``mallinfo2``: arenas and mapped blocks). Freed memory that the
allocator keeps is not in it, so that retention is never taken for growth. Python's objects up to 512 bytes live outside
malloc; their number is known, and their mean size is taken as ``BLOCK_BYTES``. What the watching itself holds is taken
off by the caller (``Meter.own``). Cost: 1 us for malloc, 10 to 30 us for a large Python heap, 5 us for the resident
size; about 1 ms a worker, asked for rarely.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

BLOCK_BYTES = 72
"""Mean bytes of a block of Python's small-object allocator, as a typical program has them."""
_FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _MallocInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


@dataclass(frozen=True, slots=True)
class Level:
    """Bytes now: ``heap`` in use (0 where malloc tells nothing), ``python`` small blocks, ``resident``."""

    heap: int
    python: int
    resident: int

    @property
    def held(self) -> int:
        """The bytes that programs hold: malloc's and Python's."""
        return self.heap + self.python


class Meter:
    """Reads levels; ``own_heap`` and ``own_python`` (bytes) are what the watcher itself holds."""

    def __init__(self) -> None:
        self._info = _malloc_info()
        self._page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
        try:
            self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        except OSError:
            self._statm = -1
        self.own_heap = self.own_python = 0

    @property
    def knows_heap(self) -> bool:
        """Whether malloc tells what it handed out; otherwise the resident size has to serve."""
        return self._info is not None

    def read(self) -> Level:
        """The level now."""
        heap = 0
        if self._info is not None:
            info = self._info()
            heap = info.uordblks + info.hblkhd - self.own_heap
        resident = 0
        if self._statm >= 0:
            with contextlib.suppress(OSError, ValueError, IndexError):
                resident = int(os.pread(self._statm, 64, 0).split()[1]) * self._page
        return Level(heap, sys.getallocatedblocks() * BLOCK_BYTES - self.own_python, resident)

    def exclude(self, before: Level) -> None:
        """What was added since ``before`` is the watcher's own."""
        after = self.read()
        self.own_heap += after.heap - before.heap
        self.own_python += after.python - before.python

    def exclude_numbers(self, count: int) -> None:
        """So many numbers in lists were added: what ``exclude`` would find, without reading twice."""
        self.own_python += count * BLOCK_BYTES
        self.own_heap += count * 9

    def close(self) -> None:
        """Give the file descriptor back."""
        if self._statm >= 0:
            os.close(self._statm)
            self._statm = -1


def _malloc_info() -> Callable[[], _MallocInfo] | None:
    try:
        call = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return None
    call.restype = _MallocInfo
    call.argtypes = []
    return call  # type: ignore[no-any-return]


def trim() -> bool:
    """Let malloc give back what it keeps (``malloc_trim``); whether this system has such a call."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return False
    return True


def worker_bytes(pid: int | None = None) -> dict[int, int]:
    """Proportional set size of each child process of this one (bytes by pid); shared pages count by share.

    Cost: about 1 ms a child. Children that ended, or that belong to others, are left out.
    """
    own = os.getpid() if pid is None else pid
    found: dict[int, int] = {}
    children: set[int] = set()
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{own}/task"):
            try:
                with open(f"/proc/{own}/task/{task}/children") as file:
                    children.update(map(int, file.read().split()))
            except (OSError, ValueError):  # not every kernel lists children
                children = _children_of(own)
                break
    for child in sorted(children):
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{child}/smaps_rollup") as file:
            for line in file:
                if line.startswith("Pss:"):
                    found[child] = int(line.split()[1]) * 1024
                    break
    return found


def _children_of(parent: int) -> set[int]:
    """Child processes, by asking every process for its parent. Cost: about 30 us a process of the machine."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat") as file:
                if int(file.read().rpartition(")")[2].split()[1]) == parent:
                    found.add(int(name))
    return found


def process_name(pid: int) -> str:
    """The command line of a process, shortened; empty where it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()[:80]
    except OSError:
        return ""
