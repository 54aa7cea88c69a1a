"""Where a forward Program is cut into parts whose inner values a backward pass computes again: few bytes alive at a cut.

    ops      | part 0        | part 1        | part 2 (last: kept)
    kept       cut 0           cut 1           everything inside

What is held when the backward pass starts is the bytes at every cut and the inner values of the last part; while a part is
computed again its own inner values are alive too. For every bound on the bytes inside a part the cuts of least bytes are a
shortest path over the operations; the bound is varied, and the parts of least total are taken (Chen et al. 2016, "Training
deep nets with sublinear memory cost", section 4.3, there with one bound and by sweeping; here with least cuts, exact for
each bound). The bytes are those of the Program: fusion makes true ones smaller, so what is chosen is judged by compiling.

Cost: O(operations x parts within the bound), for about 40 bounds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from memfit.analyses.lowering import bytes_of
from memfit.ir.program import Program

_BOUNDS = 40


def alive_after(program: Program, numbers: Mapping[str, int]) -> list[int]:
    """Bytes alive after each operation: made by one up to it and read later or an output; inputs and constants left out."""
    given = {*program.inputs, *program.constants}
    last: dict[str, int] = {}
    for index, operation in enumerate(program.operations):
        last.update((name, index) for name in operation.reads)
    last.update((name, len(program.operations)) for name in program.outputs)
    change = [0] * (len(program.operations) + 1)
    for index, operation in enumerate(program.operations):
        for name in operation.outputs:
            if name and name in last and name not in given and last[name] > index:
                nbytes = bytes_of(program, name, numbers)
                change[index] += nbytes
                change[last[name]] -= nbytes
    total, found = 0, []
    for step in change[:-1]:
        total += step
        found.append(total)
    return found


def inner_bytes(program: Program, numbers: Mapping[str, int]) -> list[int]:
    """Bytes that each operation makes."""
    return [sum(bytes_of(program, name, numbers) for name in op.outputs if name) for op in program.operations]


def cuts(alive: list[int], inner: list[int]) -> list[int]:
    """Positions of the operations after which the program is cut, ascending, for least projected bytes.

    Args:
        alive: bytes alive after each operation; inner: bytes that each makes.

    Returns:
        [] where keeping everything is best.
    """
    count = len(alive)
    sums = [0]
    for nbytes in inner:
        sums.append(sums[-1] + nbytes)
    best, chosen = sums[-1], list[int]()
    if not count:
        return chosen
    low, high = max(inner), sums[-1]
    for index in range(_BOUNDS):
        bound = int(low * (high / low) ** (index / (_BOUNDS - 1))) if low else 0
        path = least_cuts(alive, sums, bound)
        held = sum(alive[p] for p in path) + max(
            sums[b] - sums[a] for a, b in zip([0, *(p + 1 for p in path)], [*(p + 1 for p in path), count], strict=True)
        )
        if held < best:
            best, chosen = held, path
    return chosen


def least_cuts(alive: list[int], sums: list[int], bound: int) -> list[int]:
    """Cuts of least bytes in sum such that no part makes more than ``bound`` bytes (a single operation may).

    ``sums``: bytes made before each position, one longer than ``alive``.
    """
    count = len(alive)
    cost, before = [0] + [0] * count, [-1] * (count + 1)  # cost[i]: cut right before operation i
    window: list[int] = []  # positions a < i, cost ascending from the front: a queue of minima
    first = 0
    for end in range(1, count + 1):
        new = end - 1
        while len(window) > first and cost[window[-1]] >= cost[new]:
            window.pop()
        window.append(new)
        allowed = min(bisect_left(sums, sums[end] - bound), new)
        while window[first] < allowed:
            first += 1
        before[end] = window[first]
        cost[end] = cost[window[first]] + (alive[end - 1] if end < count else 0)
    path, at = list[int](), before[count]
    while at > 0:
        path.append(at - 1)
        at = before[at]
    return path[::-1]
