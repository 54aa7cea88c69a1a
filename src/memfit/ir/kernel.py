"""A kernel: one statement in a perfect nest of loops, and the variants of it that compute the same: order, tiles, padding.

    write[subscripts] (+)= product or function of reads[subscripts]      for all values of the loops

A ``Variant`` says in which order the loops run, which are tiled, and how long the rows of each array are; ``lower`` makes the
``Nest`` of it, with values that an inner loop does not change kept in registers, as compilers do. Loops that the written
subscripts do not name are reductions; changing their order reorders sums (reassociating).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from memfit.errors import NestError
from memfit.ir.nest import Access, ArraySpec, Loop, Nest, Sum, placed

Reference = tuple[str, tuple[Sum, ...]]


@dataclass(frozen=True)
class Kernel:
    """A statement and its loops.

    Attributes:
        loops: (name, extent), in the order in which the program runs them.
        reads: what is read, in order; ``write``: what is written.
        combine: "product" (of the reads, summed over reductions), "sum", "copy", or "chain" (a function of one value).
        flops: arithmetic operations of one execution of the statement; of a chain, how many functions follow one another.
    """

    name: str
    loops: tuple[tuple[str, int], ...]
    reads: tuple[Reference, ...]
    write: Reference
    arrays: Mapping[str, ArraySpec]
    combine: str = "product"
    flops: int = 2

    @property
    def reductions(self) -> frozenset[str]:
        """Loops that the written subscripts do not name."""
        named = {name for subscript in self.write[1] for name, _ in subscript.parts}
        return frozenset(name for name, _ in self.loops if name not in named)

    @property
    def extents(self) -> dict[str, int]:
        """Trips of each loop."""
        return dict(self.loops)

    def executions(self) -> int:
        """How often the statement runs."""
        total = 1
        for _, extent in self.loops:
            total *= extent
        return total


@dataclass(frozen=True)
class Variant:
    """One way to run a kernel.

    Attributes:
        order: names of the loops inside of the tiles, outermost first.
        tiles: (name, size) of tiled loops, outermost first; sizes need not divide extents.
        leading: elements of a row by array, where not the last extent.
    """

    order: tuple[str, ...]
    tiles: tuple[tuple[str, int], ...] = ()
    leading: Mapping[str, int] = field(default_factory=dict)

    def words(self, kernel: Kernel) -> str:
        """What a person reads: "order i k j, tiles i 32 x k 128, rows of B padded to 528"."""
        parts = [f"order {' '.join(self.order)}"]
        if self.tiles:
            parts.append("tiles " + " x ".join(f"{name} {size}" for name, size in self.tiles))
        padded: dict[int, list[str]] = {}
        for name, row in self.leading.items():
            if row != kernel.arrays[name].shape[-1]:
                padded.setdefault(row, []).append(name)
        parts += [f"rows of {', '.join(names)} padded to {row}" for row, names in padded.items()]
        return ", ".join(parts)


def original(kernel: Kernel) -> Variant:
    """The kernel as its program writes it."""
    return Variant(tuple(name for name, _ in kernel.loops))


def arrays_of(kernel: Kernel, variant: Variant) -> dict[str, ArraySpec]:
    """The arrays with the variant's rows."""
    return {
        name: replace(array, leading=variant.leading[name]) if name in variant.leading else array
        for name, array in kernel.arrays.items()
    }


@dataclass(frozen=True)
class Placed:
    """One loop of a lowered variant: its variable, the loop of the kernel it belongs to, and its bounds."""

    variable: str
    of: str
    start: Sum
    stops: tuple[Sum, ...]
    step: int
    trips: int


def loops_of(kernel: Kernel, variant: Variant) -> tuple[Placed, ...]:
    """All loops of a variant, outermost first: those over tiles, then those inside.

    Raises:
        NestError: an order that does not name every loop once, a tile that is none.
    """
    extents = kernel.extents
    if sorted(variant.order) != sorted(extents):
        raise NestError(
            kernel.name, f"the order {' '.join(variant.order)}", f"it must name {', '.join(extents)} once each"
        )
    found = []
    tiles = dict(variant.tiles)
    for name, size in variant.tiles:
        if name not in extents or size <= 0:
            raise NestError(
                kernel.name, f"a tile of {size} over {name}", f"loops are {', '.join(extents)}, tiles positive"
            )
        if size < extents[name]:
            found.append(Placed(f"{name}_tile", name, Sum(), (Sum(extents[name]),), size, -(-extents[name] // size)))
    for name in variant.order:
        size = tiles.get(name, extents[name])
        if size >= extents[name]:
            found.append(Placed(name, name, Sum(), (Sum(extents[name]),), 1, extents[name]))
        else:
            start = Sum.of(f"{name}_tile")
            stops = (
                (start.plus(Sum(size)),) if extents[name] % size == 0 else (start.plus(Sum(size)), Sum(extents[name]))
            )
            found.append(Placed(name, name, start, stops, 1, size))
    return tuple(found)


def depth_of(reference: Reference, loops: tuple[Placed, ...]) -> int:
    """How many loops must have begun before the reference is known: 0 before all of them."""
    named = {name for subscript in reference[1] for name, _ in subscript.parts}
    return max((number + 1 for number, loop in enumerate(loops) if loop.variable in named), default=0)


def sums_in_memory(kernel: Kernel, loops: tuple[Placed, ...]) -> bool:
    """Whether partial sums go through memory: some reduction runs outside of the loops that pick the element."""
    deepest = depth_of(kernel.write, loops)
    return any(loop.of in kernel.reductions and loop.trips > 1 for loop in loops[:deepest])


def body_of(kernel: Kernel, variant: Variant, *, outer: int | None = None) -> tuple[Loop | Access, ...]:
    """The loops and accesses of a variant.

    Args:
        outer: run only so many trips of the outermost loop that has more than one.
    """
    loops = loops_of(kernel, variant)
    if outer is not None:
        for number, loop in enumerate(loops):
            if loop.trips > 1:
                cut = loop.start.plus(Sum(outer * loop.step))
                loops = (*loops[:number], replace(loop, stops=(*loop.stops, cut)), *loops[number + 1 :])
                break
    deepest = depth_of(kernel.write, loops)
    before: list[list[Loop | Access]] = [[] for _ in range(len(loops) + 1)]
    for reference in kernel.reads:
        before[depth_of(reference, loops)].append(Access(reference[0], False, reference[1]))
    if kernel.reductions and sums_in_memory(kernel, loops):
        before[deepest].append(Access(kernel.write[0], False, kernel.write[1]))
    body: tuple[Loop | Access, ...] = ()
    for number in range(len(loops), -1, -1):
        body = (*before[number], *body)
        if number == deepest:
            body = (*body, Access(kernel.write[0], True, kernel.write[1]))
        if number:
            loop = loops[number - 1]
            body = (Loop(loop.variable, loop.start, loop.stops, body, loop.step),)
    return body


def lower(kernel: Kernel, variant: Variant, *, outer: int | None = None) -> Nest:
    """The nest of a variant; ``outer`` as in ``body_of``."""
    return placed(Nest(body_of(kernel, variant, outer=outer), arrays_of(kernel, variant), kernel.name))
