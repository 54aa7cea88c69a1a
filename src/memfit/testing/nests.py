"""Nests to test with: matrix products in the orders and layouts whose misses are known, and random ones."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from memfit.ir.nest import Access, ArraySpec, Loop, Nest, Sum, placed
from memfit.ir.nest_source import nest_from_source

IJK = """
for i in range(N):
    for j in range(N):
        s = 0
        for k in range(N):
            s += A[i, k] * B[k, j]
        C[i, j] = s
"""
IKJ = """
for i in range(N):
    for k in range(N):
        a = A[i, k]
        for j in range(N):
            C[i, j] = B[k, j] * a + C[i, j]
"""
TILED = """
for ii in range(0, N, T):
    for kk in range(0, N, T):
        for jj in range(0, N, T):
            for i in range(ii, min(ii + T, N)):
                for k in range(kk, min(kk + T, N)):
                    a = A[i, k]
                    for j in range(jj, min(jj + T, N)):
                        C[i, j] = B[k, j] * a + C[i, j]
"""

KNOWN_MISSES = (
    (IJK, 256, 256, 33_619_968, (16_914_944, 12_288, 12_288), 65_520),
    (IJK, 256, 272, 33_619_968, (1_056_768, 12_288, 12_288), 4_093),
    (IJK, 256, 260, 33_619_968, (1_073_408, 12_480, 12_480), None),
    (IJK, 257, 257, 34_015_235, (1_069_651, 12_387, 12_387), None),
    (IKJ, 256, 256, 50_397_184, (1_056_768, 12_288, 12_288), 4_080),
    (TILED, 256, 256, 50_855_936, (76_688, 12_288, 12_288), 32_528),
    (IKJ, 512, 512, 402_915_328, (8_421_376, 437_071, 49_152), None),
    (IKJ, 1024, 1024, 3_222_274_048, (67_239_936, 67_239_936, 196_608), None),
)
"""Source, size, row, accesses, misses of "48KiB/12,1MiB/16,32MiB/16", L1 write-backs: what independent simulators agree on."""


def product(source: str, size: int, leading: int | None = None, tile: int = 32) -> Nest:
    """A square float32 matrix product of one of the sources above."""
    arrays = {name: ArraySpec((size, size), 4, leading) for name in "ABC"}
    return nest_from_source(source, arrays, {"N": size, "T": tile}, "product")


def random_nest(draw: random.Random) -> Nest:
    """A small nest of 1 to 3 loops with accesses at any depth, strides of any sign, sometimes a triangle or a tile."""
    depth = draw.randint(1, 3)
    names = ["i", "j", "k"][:depth]
    extents = [draw.choice([1, 3, 8, 17, 40, 64]) for _ in names]
    accesses: list[tuple[int, Access]] = []
    arrays: dict[str, ArraySpec] = {}
    for array in "XYZ"[: draw.randint(1, 3)]:
        used = [name for name in names if draw.random() < 0.7]
        scale = {name: draw.choice([1, 1, 2, 3, 16, -1]) for name in used}
        low = sum(min(0, s * (extents[names.index(n)] - 1)) for n, s in scale.items())
        high = sum(max(0, s * (extents[names.index(n)] - 1)) for n, s in scale.items())
        arrays[array] = ArraySpec((high - low + 1 + draw.randint(0, 40),), draw.choice([4, 8, 64]))
        subscript = Sum(-low, tuple(sorted(scale.items())))
        for _ in range(draw.randint(1, 2)):
            at = draw.randint(max([names.index(n) + 1 for n in used], default=1), depth)
            accesses.append((at, Access(array, draw.random() < 0.4, (subscript,))))
    body: tuple[Loop | Access, ...] = ()
    for level in range(depth, 0, -1):
        own = [access for at, access in accesses if at == level]
        cut = draw.randint(0, len(own))
        body = (*own[:cut], *body, *own[cut:])
        stops: tuple[Sum, ...] = (Sum(extents[level - 1]),)
        if level > 1 and draw.random() < 0.2:
            stops = (*stops, Sum(1, ((names[level - 2], 1),)))
        if body:
            body = (Loop(names[level - 1], Sum(), stops, body),)
    return placed(Nest(body, arrays, "random"))


def addresses(nest: Nest) -> Iterator[tuple[int, bool, str]]:
    """Every access of the nest in order: address, write, array. The slow twin of the walker; for small nests."""
    nest = placed(nest) if not nest.bases else nest

    def walk(body: Sequence[Loop | Access], values: dict[str, int]) -> Iterator[tuple[int, bool, str]]:
        for part in body:
            if isinstance(part, Access):
                steps = nest.arrays[part.array].steps()
                place = sum(s.at(values) * step for s, step in zip(part.subscripts, steps, strict=True))
                yield nest.bases[part.array] + place, part.write, part.array
            else:
                nearest = min if part.step > 0 else max
                for value in range(part.start.at(values), nearest(stop.at(values) for stop in part.stops), part.step):
                    yield from walk(part.body, {**values, part.variable: value})

    yield from walk(nest.body, {})
