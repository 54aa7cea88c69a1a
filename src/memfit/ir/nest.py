"""Nests of loops over arrays, as plain data: what is read and written in which order, without the values.

A ``Nest`` is a tree: loops hold accesses and loops, in the order of the program. Subscripts and bounds are sums of loop
variables with whole coefficients (affine); anything else is refused with the place. Arrays lie page-aligned one after
another in the order given, unless a base is set. ``encode`` turns a nest into the numbers that the native walker reads, with
every loop counting from 0 in steps of 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from memfit.errors import NestError

Ints = npt.NDArray[np.int64]
PAGE = 4096
MOST_BYTES = 1 << 36
"""Addresses of a nest stay below this."""
_MOST_TRIPS = 1 << 40


@dataclass(frozen=True)
class Sum:
    """``constant`` + sum of coefficient x variable: ``parts`` is ((variable, coefficient), ...), sorted, none 0."""

    constant: int = 0
    parts: tuple[tuple[str, int], ...] = ()

    @staticmethod
    def of(value: Sum | int | str) -> Sum:
        """A number, a variable's name, or a sum as it is."""
        if isinstance(value, Sum):
            return value
        return Sum(0, ((value, 1),)) if isinstance(value, str) else Sum(int(value))

    def plus(self, other: Sum, times: int = 1) -> Sum:
        """This + times x other."""
        parts = dict(self.parts)
        for name, coefficient in other.parts:
            parts[name] = parts.get(name, 0) + times * coefficient
        return Sum(self.constant + times * other.constant, tuple(sorted((n, c) for n, c in parts.items() if c)))

    def times(self, factor: int) -> Sum:
        """factor x this."""
        return Sum().plus(self, factor)

    def at(self, values: Mapping[str, int]) -> int:
        """Its value where the variables have ``values``."""
        return self.constant + sum(c * values[n] for n, c in self.parts)


@dataclass(frozen=True)
class ArraySpec:
    """An array in memory.

    Attributes:
        shape: elements in each dimension, the last one contiguous.
        item: bytes of an element, at most a line; lines are a multiple of it.
        leading: elements between two rows of the last dimension; None: the last extent.
        base: address of the first byte; None: the next page.
        strides: elements between neighbours in each dimension; None: row-major with ``leading``.
    """

    shape: tuple[int, ...]
    item: int = 4
    leading: int | None = None
    base: int | None = None
    strides: tuple[int, ...] | None = None

    def steps(self) -> tuple[int, ...]:
        """Bytes between neighbours in each dimension."""
        if self.strides is not None:
            return tuple(step * self.item for step in self.strides)
        steps = [self.item]
        for number, extent in enumerate(reversed(self.shape[1:])):
            row = self.leading if number == 0 and self.leading is not None else extent
            steps.append(steps[-1] * row)
        return tuple(reversed(steps))

    def span(self) -> int:
        """Bytes from the first to past the last element."""
        return sum((extent - 1) * step for extent, step in zip(self.shape, self.steps(), strict=True)) + self.item


@dataclass(frozen=True)
class Access:
    """A read or a write of ``array[subscripts]``."""

    array: str
    write: bool
    subscripts: tuple[Sum, ...]


@dataclass(frozen=True)
class Loop:
    """``for variable in range(start, min(stops), step)`` around a body; downwards, with a step below 0, to max(stops)."""

    variable: str
    start: Sum
    stops: tuple[Sum, ...]
    body: tuple[Loop | Access, ...]
    step: int = 1


@dataclass(frozen=True)
class Nest:
    """Loops and accesses in order, the arrays by name, and where they lie (bytes)."""

    body: tuple[Loop | Access, ...]
    arrays: Mapping[str, ArraySpec]
    name: str = "nest"
    bases: Mapping[str, int] = field(default_factory=dict)

    def accesses(self) -> list[tuple[Access, tuple[Loop, ...]]]:
        """Every access with the loops around it, outermost first."""
        return list(_accesses(self.body, ()))

    def count(self) -> int:
        """Accesses in all. Cost: the product of the trips of loops that others' bounds name."""
        code = encode(self)
        return int(sum(_count(code, 0, len(code.nodes), [0] * code.variables).values()))

    def counts(self) -> dict[str, int]:
        """Accesses to each array."""
        code = encode(self)
        found = _count(code, 0, len(code.nodes), [0] * code.variables)
        return {name: found.get(number, 0) for number, name in enumerate(self.arrays)}


def _accesses(body: Sequence[Loop | Access], around: tuple[Loop, ...]) -> Iterator[tuple[Access, tuple[Loop, ...]]]:
    for part in body:
        if isinstance(part, Access):
            yield part, around
        else:
            yield from _accesses(part.body, (*around, part))


def placed(nest: Nest) -> Nest:
    """The nest with a base for every array: those set, else page-aligned one after another.

    Raises:
        NestError: an array that no machine holds, an item that would straddle lines.
    """
    bases: dict[str, int] = {}
    at = PAGE
    for name, array in nest.arrays.items():
        if not array.shape or min(array.shape) <= 0:
            raise NestError(nest.name, f"array {name} has the shape {array.shape}", "extents are positive")
        if array.item <= 0 or array.item & (array.item - 1) or array.item > 64:
            raise NestError(nest.name, f"array {name} has items of {array.item} bytes", "1, 2, 4, ... 64 are known")
        if array.leading is not None and len(array.shape) > 1 and array.leading < array.shape[-1]:
            raise NestError(
                nest.name,
                f"array {name}: the leading dimension {array.leading} is less than a row of {array.shape[-1]}",
            )
        base = at if array.base is None else array.base
        if base % array.item or base < 0:
            raise NestError(nest.name, f"array {name} lies at {base}, which is no multiple of its item", "align it")
        bases[name] = base
        end = base + array.span()
        if end > MOST_BYTES:
            raise NestError(nest.name, f"array {name} ends at byte {end}", f"{MOST_BYTES} bytes can be simulated")
        at = (end + PAGE - 1) // PAGE * PAGE
    return replace(nest, bases=bases)


@dataclass(frozen=True)
class Node:
    """A loop (``trips``: affine over counters) or an access (``address`` in bytes), as the walker sees it."""

    loop: bool
    end: int
    variable: int = 0
    trips: tuple[tuple[int, ...], ...] = ()
    array: int = 0
    write: bool = False
    address: tuple[int, ...] = ()


@dataclass(frozen=True)
class Code:
    """A nest as numbers: nodes in order, each affine as (constant, coefficient of each counter)."""

    nodes: tuple[Node, ...]
    variables: int
    spans: tuple[tuple[int, int], ...]

    def numbers(self) -> Ints:
        """What the native walker reads."""
        flat: list[int] = []
        for node in self.nodes:
            if node.loop:
                flat += [1, node.end, node.variable, len(node.trips)]
                for bound in node.trips:
                    flat += bound
            else:
                flat += [0, node.array, int(node.write), *node.address]
        return np.array(flat, np.int64)

    def lines(self, line: int) -> Ints:
        """First and last line of each array."""
        return np.array([number for low, high in self.spans for number in (low // line, (high - 1) // line)], np.int64)


def encode(nest: Nest) -> Code:
    """The nest as numbers; every subscript checked against its array's extents at the loops' ends.

    Raises:
        NestError: unknown arrays or variables, subscripts outside, loops that never run, or too many trips.
    """
    if nest.arrays and not nest.bases:
        nest = placed(nest)
    if not any(True for _ in nest.accesses()):
        raise NestError(nest.name, "it accesses no array", "give it reads or writes")
    order = {name: number for number, name in enumerate(nest.arrays)}
    variables = sum(1 for _ in _loops(nest.body))
    nodes: list[Node] = []

    def affine(total: Sum, known: Mapping[str, tuple[Sum, int]], counters: Mapping[str, int]) -> tuple[int, ...]:
        row = [0] * (1 + variables)
        pending = [(total, 1)]
        while pending:
            part, factor = pending.pop()
            row[0] += factor * part.constant
            for name, coefficient in part.parts:
                if name not in known:
                    raise NestError(
                        nest.name, f"{name!r} is no loop variable here", f"around it: {', '.join(known) or 'none'}"
                    )
                start, step = known[name]
                row[1 + counters[name]] += factor * coefficient * step
                pending.append((start, factor * coefficient))
        if any(abs(value) >= 1 << 60 for value in row):
            raise NestError(nest.name, "an address or a bound is beyond 60 bits", "use smaller extents")
        return tuple(row)

    def lay(
        body: Sequence[Loop | Access],
        known: dict[str, tuple[Sum, int]],
        counters: dict[str, int],
        ends: list[tuple[int, int]],
    ) -> None:
        for part in body:
            if isinstance(part, Access):
                nodes.append(_access(part, known, counters, ends))
                continue
            if part.step == 0:
                raise NestError(nest.name, f"loop {part.variable} steps by 0", "steps are whole numbers but 0")
            if part.variable in known:
                raise NestError(nest.name, f"two loops around each other are called {part.variable}", "rename one")
            number = len(ends)
            trips = []
            for stop in part.stops:
                extent = stop.plus(part.start, -1)
                row = affine(extent, known, counters)
                if part.step != 1:
                    if any(value % part.step for value in row[1:]):
                        raise NestError(
                            nest.name, f"the trips of loop {part.variable} are no whole sum: range(..., {part.step})",
                            "let its bounds move by multiples of the step",
                        )  # fmt: skip
                    row = (-(-row[0] // part.step), *(value // part.step for value in row[1:]))
                trips.append(row)
            most = min(_extreme(row, ends, top=True) for row in trips)
            if most <= 0:
                raise NestError(
                    nest.name, f"loop {part.variable} never runs: at most {most} trips", "use positive extents"
                )
            if most > _MOST_TRIPS:
                raise NestError(nest.name, f"loop {part.variable} would run {most} times", f"{_MOST_TRIPS} are allowed")
            here = len(nodes)
            nodes.append(Node(True, 0, number, tuple(trips)))
            ends.append((number, most - 1))
            lay(part.body, {**known, part.variable: (part.start, part.step)}, {**counters, part.variable: number}, ends)
            nodes[here] = replace(nodes[here], end=len(nodes))

    def _access(
        part: Access, known: Mapping[str, tuple[Sum, int]], counters: Mapping[str, int], ends: Sequence[tuple[int, int]]
    ) -> Node:
        if part.array not in nest.arrays:
            raise NestError(
                nest.name, f"there is no array {part.array!r}", f"there are {', '.join(nest.arrays) or 'none'}"
            )
        array = nest.arrays[part.array]
        if len(part.subscripts) != len(array.shape):
            raise NestError(
                nest.name,
                f"{part.array} has {len(array.shape)} dimensions and is accessed with {len(part.subscripts)} subscripts",
            )
        address = [nest.bases[part.array]] + [0] * variables
        for number, (subscript, step) in enumerate(zip(part.subscripts, array.steps(), strict=True)):
            row = affine(subscript, known, counters)
            simple = not _coupled(part, known)
            low, high = _extreme(row, ends, top=False), _extreme(row, ends, top=True)
            if simple and (low < 0 or high >= array.shape[number]):
                raise NestError(
                    nest.name,
                    f"subscript {number} of {part.array} runs from {low} to {high}, "
                    f"its extent is {array.shape[number]}",
                    "enlarge the array or shorten the loops",
                )  # fmt: skip
            address = [a + step * r for a, r in zip(address, row, strict=True)]
        return Node(False, len(nodes) + 1, array=order[part.array], write=part.write, address=tuple(address))

    def _coupled(part: Access, known: Mapping[str, tuple[Sum, int]]) -> bool:
        """Whether a loop around has bounds that name another: its extreme is then not reached at the others' extremes."""
        return any(start.parts for start, _ in known.values()) or bool(dependent & set(known))

    dependent = {loop.variable for loop in _loops(nest.body) if any(stop.parts for stop in loop.stops)}
    lay(nest.body, {}, {}, [])
    spans = tuple((nest.bases[name], nest.bases[name] + array.span()) for name, array in nest.arrays.items())
    code = Code(tuple(nodes), variables, spans)
    if dependent:
        _check_corners(nest, code)
    return code


def _loops(body: Sequence[Loop | Access]) -> Iterator[Loop]:
    for part in body:
        if isinstance(part, Loop):
            yield part
            yield from _loops(part.body)


def _extreme(row: Sequence[int], ends: Sequence[tuple[int, int]], *, top: bool) -> int:
    value = row[0]
    for number, last in ends:
        part = row[1 + number] * last
        value += max(part, 0) if top else min(part, 0)
    return value


def _check_corners(nest: Nest, code: Code) -> None:
    """Where bounds name variables: every access's lowest and highest address, walking the loops that the bounds name."""
    named = {v for node in code.nodes if node.loop for bound in node.trips for v, c in enumerate(bound[1:]) if c}
    names = list(nest.arrays)

    def walk(first: int, last: int, counter: list[int], free: list[tuple[int, int]]) -> None:
        n = first
        while n < last:
            node = code.nodes[n]
            if node.loop:
                trips = min(_at(bound, counter) for bound in node.trips)
                if trips > 0 and node.variable in named:
                    steps = range(trips) if trips <= 4096 else (0, trips - 1)
                    for t in steps:
                        counter[node.variable] = t
                        walk(n + 1, node.end, counter, free)
                    counter[node.variable] = 0
                elif trips > 0:
                    walk(n + 1, node.end, counter, [*free, (node.variable, trips - 1)])
            else:
                fixed = _at(node.address, counter)
                reach = [node.address[1 + v] * last_trip for v, last_trip in free]
                low, high = code.spans[node.array]
                if fixed + sum(min(r, 0) for r in reach) < low or fixed + sum(max(r, 0) for r in reach) >= high:
                    raise NestError(
                        nest.name, f"an access leaves array {names[node.array]}", "enlarge it or shorten the loops"
                    )
            n = node.end

    walk(0, len(code.nodes), [0] * code.variables, [])


def _at(row: Sequence[int], counter: Sequence[int]) -> int:
    return row[0] + sum(c * t for c, t in zip(row[1:], counter, strict=True))


def _count(code: Code, first: int, last: int, counter: list[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    n = first
    while n < last:
        node = code.nodes[n]
        if node.loop:
            trips = max(0, min(_at(bound, counter) for bound in node.trips))
            named = any(b[1 + node.variable] for m in range(n + 1, node.end) for b in code.nodes[m].trips)
            for t in range(trips if named else min(trips, 1)):
                counter[node.variable] = t
                for array, count in _count(code, n + 1, node.end, counter).items():
                    found[array] = found.get(array, 0) + count * (1 if named else trips)
            counter[node.variable] = 0
        else:
            found[node.array] = found.get(node.array, 0) + 1
        n = node.end
    return found
