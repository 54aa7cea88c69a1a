"""A nest that is one statement in perfectly nested loops of fixed extents -> the kernel, so that other orders can be tried.

Loops that begin elsewhere or take steps are counted from 0 in steps of 1.

Sums are recognised: a written element that is also read, or that loops inside do not change. The values are unknown, so the
generated code multiplies what it reads; timing it stands for the pattern, not for the program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from memfit.ir.kernel import Kernel
from memfit.ir.nest import Access, Loop, Nest, Sum


def kernel_of_nest(nest: Nest) -> Kernel | None:
    """The kernel of ``nest``, or None where it is none."""
    loops: list[tuple[str, int]] = []
    first: dict[str, Sum] = {}
    found: list[Access] = []
    body = nest.body
    while True:
        inner = [part for part in body if isinstance(part, Loop)]
        found += [part for part in body if isinstance(part, Access)]
        if not inner:
            break
        loop = inner[0]
        if len(inner) > 1 or loop.step < 1 or loop.start.parts or any(stop.parts for stop in loop.stops):
            return None
        trips = -(-(min(stop.constant for stop in loop.stops) - loop.start.constant) // loop.step)
        loops.append((loop.variable, trips))
        first[loop.variable] = Sum(loop.start.constant).plus(Sum.of(loop.variable), loop.step)
        body = loop.body
    accesses = [replace(a, subscripts=tuple(_counted(s, first) for s in a.subscripts)) for a in found]
    writes = list(dict.fromkeys((a.array, a.subscripts) for a in accesses if a.write))
    if len(writes) != 1 or not loops:
        return None
    write = writes[0]
    reads = [(a.array, a.subscripts) for a in accesses if not a.write and (a.array, a.subscripts) != write]
    if not reads or any(array == write[0] for array, _ in reads):
        return None
    named = {name for subscript in write[1] for name, _ in subscript.parts}
    sums = any(name not in named and extent > 1 for name, extent in loops)
    combine = "product" if sums and len(reads) > 1 else "sum" if sums or len(reads) > 1 else "copy"
    return Kernel(nest.name, tuple(loops), tuple(dict.fromkeys(reads)), write, nest.arrays, combine, len(reads))


def _counted(subscript: Sum, first: Mapping[str, Sum]) -> Sum:
    """The subscript over loops that count from 0 in steps of 1."""
    total = Sum(subscript.constant)
    for name, coefficient in subscript.parts:
        total = total.plus(first[name], coefficient)
    return total
