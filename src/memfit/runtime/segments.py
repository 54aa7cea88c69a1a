"""Segments: named ranges of a workload's memory, each with a base, a limit and a protection.

    weights       read-only, mapped from a safetensors file          scratch        read-write, guard pages around it
    |guard| base ............... limit |guard|                       |guard| base ............... limit |guard|

A segment answers for its own accessors: past the limit or against the protection is a ``SegmentError`` that names segment,
offset and access. Arrays and tensors over it are plain memory, so what native code does there cannot become an exception:
a write to read-only weights or past the limit faults, and the handler says which segment, where and what, and ends the
process with exit code ``FAULT_EXIT``. Faults elsewhere are handed on. Where the limit is no multiple of 64 bytes, up to 63
bytes behind it are a pad that does not fault; ``check`` finds a change there, and in front of the base.

Cost: a page table entry a page touched; an access through an array costs nothing more. Linux and other POSIX systems.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit import _core
from memfit.errors import SegmentError, WeightFileError
from memfit.ir.safetensors_header import FileIdentity, SafetensorsHeader, header_of
from memfit.runtime.domains import current
from memfit.units import format_bytes, parse_bytes

__all__ = ["FAULT_EXIT", "Segment", "WeightSegment"]

FAULT_EXIT = _core.FAULT_EXIT
"""Exit code of a process that native code brought down by a fault in a segment."""

READ, READ_WRITE, NONE = "read", "read-write", "none"
_NUMBERS = {NONE: 0, READ: 1, READ_WRITE: 3}
_ALIGNMENT = 64


def _guard_bytes(guard: int | str) -> int:
    return 0 if guard == 0 else -(-parse_bytes(guard) // mmap.PAGESIZE) * mmap.PAGESIZE


class Segment:
    """A named range of zeroed memory.

    Args:
        name: what errors call it: ``activations``, ``gradients``, ``optimizer state``, ``key/value cache``, ``scratch``.
        size: bytes, or a size such as ``"64MiB"``; at least 1.
        guard: bytes without access on each side, rounded up to pages; 0 for none.

    Inside of a domain its bytes are charged to that.

    Raises:
        SegmentError: a size that is none, or memory that the system does not give.
        DomainBudgetError: the domain has not that much left.
    """

    def __init__(self, name: str, size: int | str, *, guard: int | str = mmap.PAGESIZE) -> None:
        nbytes = parse_bytes(size)
        if nbytes < 1:
            raise SegmentError(name, 0, "create", f"{nbytes} bytes are no size", "write 1 byte or more, such as 64MiB")
        self.name, self.limit = name, nbytes
        self.guard = _guard_bytes(guard)
        tenant = current()
        if tenant is not None:
            tenant.charge(nbytes)
        try:
            self._open(lambda: _core.Segment(name, nbytes, self.guard))
        except SegmentError:
            if tenant is not None:
                tenant.credit(nbytes)
            raise
        if tenant is not None:  # until nothing looks at the memory any more
            weakref.finalize(self._native, tenant.credit, nbytes).atexit = False

    def _open(self, made: Any) -> None:
        self.used = 0
        try:
            self._native: _core.Segment = made()
        except (RuntimeError, OSError) as error:
            raise SegmentError(
                self.name, 0, "create", f"the system does not give {format_bytes(self.limit)} ({error})"
            ) from error
        self.base: int = self._native.address

    @property
    def protection(self) -> str:
        """``"read-write"``, ``"read"`` or ``"none"``."""
        return next(name for name, number in _NUMBERS.items() if number == self._native.protection)

    def protect(self, protection: str) -> None:
        """What may be done with all of it from now on: ``"read-write"``, ``"read"`` or ``"none"``. One system call.

        Raises:
            SegmentError: another word, or the segment is closed.
        """
        if protection not in _NUMBERS:
            why = f"there is no protection {protection!r}"
            raise SegmentError(self.name, 0, "protect", why, f"known: {', '.join(_NUMBERS)}")
        try:
            self._native.protect(_NUMBERS[protection])
        except RuntimeError as error:
            raise SegmentError(self.name, 0, "protect", str(error)) from error

    @contextmanager
    def writable(self) -> Iterator[None]:
        """Read-write inside the block, what it was after it."""
        before = self.protection
        self.protect(READ_WRITE)
        try:
            yield
        finally:
            self.protect(before)

    def array(
        self, shape: int | Sequence[int], dtype: npt.DTypeLike = np.float32, *, offset: int | None = None
    ) -> npt.NDArray[Any]:
        """An array over the segment: at ``offset`` bytes, or behind what was given out before, aligned to 64 bytes.

        It keeps the memory; it may be written to where the segment may be now. ``used`` counts what was given out.

        Raises:
            SegmentError: it would end past the limit.
        """
        extents = (shape,) if isinstance(shape, int) else tuple(shape)
        kind = np.dtype(dtype)
        nbytes = math.prod(extents) * kind.itemsize
        at = -(-self.used // _ALIGNMENT) * _ALIGNMENT if offset is None else offset
        self._inside(at, nbytes, f"an array of {nbytes} bytes")
        if offset is None:
            self.used = at + nbytes
        found: npt.NDArray[Any] = self._native.bytes()[at : at + nbytes].view(kind).reshape(extents)
        found.flags.writeable = self.protection == READ_WRITE
        return found

    def reset(self) -> None:
        """Give out the segment from its base again; arrays over it stay, and share bytes with new ones."""
        self.used = 0

    def read(self, offset: int, nbytes: int) -> bytes:
        """Bytes of the segment, copied.

        Raises:
            SegmentError: outside of the limit, or the segment may not be read now.
        """
        self._inside(offset, nbytes, "read")
        into = np.empty(nbytes, np.uint8)
        self._ran(self._native.read(offset, into), "read", offset)
        return into.tobytes()

    def write(self, offset: int, data: bytes | bytearray | memoryview | npt.NDArray[Any]) -> None:
        """Copies bytes, or an array's, into the segment.

        Raises:
            SegmentError: outside of the limit, or the segment may not be written to now.
        """
        given = np.ascontiguousarray(data).reshape(-1).view(np.uint8) if isinstance(data, np.ndarray) else data
        source = np.frombuffer(given, np.uint8) if not isinstance(given, np.ndarray) else given
        self._inside(offset, len(source), "write")
        self._ran(self._native.write(offset, source), "write", offset)

    def check(self) -> None:
        """Looks at the pads around the segment, where a write does not fault.

        Raises:
            SegmentError: somebody wrote there.
        """
        at = self._native.breach()
        if at is not None:
            where = (
                f"{-at} bytes before its base" if at < 0 else f"{at - self.limit} bytes past its limit of {self.limit}"
            )
            raise SegmentError(self.name, at, "write", f"something wrote {where}", "look for an index out of bounds")

    def close(self) -> None:
        """Gives the memory back; whoever touches it afterwards faults, and the handler names this segment."""
        self._native.close()

    def buffer(self) -> npt.NDArray[np.uint8]:
        """All of it as bytes, writable as far as NumPy knows: for tensors, which know no read-only memory."""
        found: npt.NDArray[np.uint8] = self._native.bytes()
        return found

    def _inside(self, offset: int, nbytes: int, access: str) -> None:
        if offset < 0 or nbytes < 0 or offset + nbytes > self.limit:
            end = offset + nbytes
            why = f"bytes [{offset}, {end}) are outside of its {self.limit} bytes"
            if end > self.limit:
                why += f", {end - self.limit} past the limit"
            raise SegmentError(self.name, offset, access, why)

    def _ran(self, fault: tuple[int, int, bool] | None, access: str, offset: int) -> None:
        if fault is None:
            return
        found, _, file = fault
        if file:
            raise SegmentError(
                self.name, found, access, "the file behind it became shorter while it was mapped", "map it anew"
            )
        raise SegmentError(
            self.name, offset, access, f"its protection is {self.protection!r}", "protect('read-write') allows writing"
        )

    def __repr__(self) -> str:
        return f"<Segment {self.name!r}: {format_bytes(self.limit)} at {self.base:#x}, {self.protection}>"


class WeightSegment(Segment):
    """The tensors of a safetensors file, mapped read-only: no copy, pages shared with every process that maps it.

    Raises:
        WeightFileError: no such file, not the format, cut short, or a header that contradicts itself or the file.
    """

    def __init__(self, path: str | Path, name: str = "weights", *, guard: int | str = mmap.PAGESIZE) -> None:
        self.path = Path(path)
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise WeightFileError(str(path), error.strerror or str(error)) from error
        try:
            self.header: SafetensorsHeader = header_of(descriptor, str(path))
            self.name, self.limit = name, self.header.identity.nbytes
            self.guard = _guard_bytes(guard)
            self._open(lambda: _core.Segment.map(name, descriptor, self.limit, self.guard))
        finally:
            os.close(descriptor)
        self.used = self.limit

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names, in file order."""
        return tuple(self.header.tensors)

    def place(self, name: str) -> tuple[int, int]:
        """Offset and bytes of a tensor, from the segment's base.

        Raises:
            SegmentError: there is none of that name.
        """
        if name not in self.header.tensors:
            why = f"the file has no tensor {name!r}"
            raise SegmentError(self.name, 0, "find", why, f"it has {len(self.names)}, see names")
        stored = self.header.tensors[name]
        return stored.begin, stored.nbytes

    def check(self) -> None:
        """Whether the file is still the one that was mapped: its size, its last change, and that the path names it.

        Raises:
            WeightFileError: it changed, was replaced or is gone.
        """
        was = self.header.identity
        hint = "map it anew; write weights to a new file and rename it, and never into one that is mapped"
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise WeightFileError(str(self.path), f"it is gone while mapped ({error.strerror})", hint) from error
        now = FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if now == was:
            return
        if (now.device, now.inode) != (was.device, was.inode):
            raise WeightFileError(str(self.path), "another file took its place while it was mapped", hint)
        if now.nbytes != was.nbytes:
            why = f"it was {was.nbytes} bytes when it was mapped and is {now.nbytes} now"
            raise WeightFileError(str(self.path), why, hint)
        raise WeightFileError(str(self.path), "its content was written to while it was mapped", hint)
