"""Replay allocations through the real malloc of this machine, in a process of its own: how far does its heap reach?

The C library is its own best model: mmap threshold that grows, best-fit bins, trimming of the top, alignment splits. A
fresh interpreter makes the same requests, writes to none of them (untouched pages cost nothing) and reads from chunk
headers and the break what would be resident::

    resident = heap up to the highest byte handed out since the last trim + chunks with a mapping of their own

A tensor never comes alone. Small blocks that live longer than the tensors around them decide how the heap fragments, so
each storage brings those of its tensor object, each forward op those of its autograd node (freed at the mirrored place
in backward), each new op those it leaves in caches. Their exact mix is not known; ``VARIANTS`` are plausible ones,
and the spread of their answers is the uncertainty. Cost: 2-3 us an event and variant.

Run as a script: a JSON line and raw columns on standard input, a JSON list of peaks on standard output; it needs no
package.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

BUILD, FORWARD, BACKWARD, OPTIMIZER, BETWEEN = range(5)


@dataclass(frozen=True)
class SmallBlocks:
    """Sizes in bytes of the small blocks around tensors; ``freed``: a block freed first, which raises the threshold."""

    tensor: tuple[int, ...] = (96, 176)
    node: tuple[int, ...] = (336, 96, 32, 32)
    new_op: tuple[int, ...] = (96, 48, 176)
    built: tuple[int, ...] = (96, 16, 464)
    freed: int = 0


NONE = SmallBlocks((), (), (), ())
VARIANTS = (
    SmallBlocks(), SmallBlocks(new_op=()), SmallBlocks(tensor=()), SmallBlocks(freed=4_000_000), SmallBlocks(built=()),
    SmallBlocks(new_op=(96,)), SmallBlocks(node=(480, 96, 32, 48, 32)), SmallBlocks(tensor=(176, 96, 32)),
    SmallBlocks(node=(336, 176, 96, 96, 64, 32, 32, 16)),
)  # fmt: skip


@dataclass(frozen=True)
class Requests:
    """A trace in columns: of events ``storage``, ``delta`` (bytes), ``op``; of ops ``phase``, ``step``, ``is_new``."""

    storage: Sequence[int]
    delta: Sequence[int]
    op: Sequence[int]
    phase: Sequence[int]
    step: Sequence[int]
    is_new: Sequence[int]


class OutOfAddressesError(Exception):
    """malloc refused a request."""


def replay(requests: Requests, small: SmallBlocks) -> tuple[int, int]:
    """Peak and final bytes that the heap and the mapped chunks would keep resident.

    Raises:
        OutOfAddressesError: the system refuses a request of that size.
    """
    library = ctypes.CDLL(None)
    memalign, malloc, free, sbrk = library.memalign, library.malloc, library.free, library.sbrk
    memalign.restype = malloc.restype = sbrk.restype = ctypes.c_void_p
    memalign.argtypes, malloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t], [ctypes.c_size_t]
    free.argtypes, free.restype, sbrk.argtypes = [ctypes.c_void_p], None, [ctypes.c_ssize_t]
    word = ctypes.c_size_t.from_address
    if small.freed:
        free(malloc(small.freed))
    forward: dict[int, int] = {}
    backward: dict[int, int] = {}
    for phase, step in zip(requests.phase, requests.step, strict=True):
        if phase == FORWARD:
            forward[step] = forward.get(step, 0) + 1
        elif phase == BACKWARD:
            backward[step] = backward.get(step, 0) + 1
    start = touched = sbrk(0)
    mapped = peak = 0
    living: dict[int, tuple[int, int, list[int]]] = {}
    nodes: list[list[int]] = []
    done: dict[int, int] = {}
    last = -1
    for storage, delta, op in zip(requests.storage, requests.delta, requests.op, strict=True):
        while last < op:
            last += 1
            phase, step = requests.phase[last], requests.step[last]
            if phase == FORWARD and step in backward:
                nodes.append([malloc(size) for size in small.node])
            elif phase == BACKWARD:
                done[step] = done.get(step, 0) + 1
                left = forward.get(step, 0) * (backward[step] - done[step]) // backward[step]
                while len(nodes) > left:
                    for block in nodes.pop():
                        free(block)
            elif phase != FORWARD:
                while nodes:
                    for block in nodes.pop():
                        free(block)
            if phase != BUILD and requests.is_new[last]:
                for size in small.new_op:
                    malloc(size)
        if delta > 0:
            address = memalign(64, delta)
            if not address:
                raise OutOfAddressesError(delta)
            header = word(address - 8).value
            own = 0
            if header & 2:
                own = ((header & ~7) + 4095) & ~4095
                mapped += own
            elif address + delta > touched:
                touched = address + delta
            living[storage] = (address, own, [malloc(size) for size in small.tensor])
            if requests.phase[op] == BUILD:
                for size in small.built:
                    malloc(size)
        else:
            found = living.pop(storage, None)
            if found is not None:
                for block in found[2]:
                    free(block)
                free(found[0])
                mapped -= found[1]
                touched = min(touched, sbrk(0))
        resident = mapped + touched - start
        if resident > peak:
            peak = resident
    return peak, mapped + touched - start


def _replay_in_fork(requests: Requests, small: SmallBlocks) -> list[int] | None:
    """``replay`` in a forked child, so that every variant finds the same heap; None where it failed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writing, json.dumps(replay(requests, small)).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return [int(value) for value in json.loads(text)] if status == 0 and text else None


def _read(stream: object) -> tuple[Requests, int]:
    header = json.loads(stream.readline())  # type: ignore[attr-defined]
    columns = []
    for count, code in header["columns"]:
        column = array(code)
        column.frombytes(stream.read(count * column.itemsize))  # type: ignore[attr-defined]
        columns.append(column.tolist())
    return Requests(*columns), int(header["variants"])


if __name__ == "__main__":
    asked, count = _read(sys.stdin.buffer)
    sys.stdout.write(json.dumps([_replay_in_fork(asked, small) for small in VARIANTS[:count]]))
