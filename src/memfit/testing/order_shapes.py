"""Graphs of any shape and series-parallel graphs, to test and measure operator orders with. Deterministic by seed."""

from __future__ import annotations

import random

from memfit.ir.graph import Graph, Op, Storage

_SIZES = (0, 1, 2, 3, 5, 8, 13, 21, 34, 100)


def wired(seed: int, ops: int, reach: int | None = None) -> Graph:
    """Each op reads up to three of the last ``reach`` results (of all, by default).

    Some read a constant, make several results or none, take over an input's bytes, have workspace or a kept result;
    some order edges, and a chain of up to three ops.
    """
    draw = random.Random(seed)
    storages, made = [Storage(draw.randint(1, 9), constant=True)], list[int]()
    rows: list[Op] = []
    order: list[tuple[int, int]] = []
    for index in range(ops):
        near = made[-reach:] if reach else made
        reads = draw.sample(near, min(len(near), draw.choice([0, 1, 1, 2, 2, 3])))
        reads += [0] if draw.random() < 0.2 else []
        writes = []
        for _ in range(draw.choice([0, 1, 1, 1, 1, 2])):
            storages.append(Storage(draw.choice(_SIZES[:7]), output=draw.random() < 0.1))
            writes.append(len(storages) - 1)
        reuse = -1
        if reads and writes and draw.random() < 0.4:
            reuse = draw.choice(reads)
            storages[writes[0]] = Storage(storages[reuse].nbytes, output=storages[writes[0]].output)
        if index and draw.random() < 0.15:
            order.append((draw.randrange(index), index))
        rows.append(Op(f"op{index}", tuple(reads), tuple(writes), workspace=draw.choice([0, 0, 0, 4, 9]), reuse=reuse))
        made += writes
    chain = sorted(draw.sample(range(ops), min(ops, draw.choice([0, 0, 2, 3]))))
    return Graph(tuple(rows), tuple(storages), tuple(order), tuple(chain))


def series_parallel(seed: int, ops: int, *, shared: bool = True, spiced: float = 0.0) -> Graph:
    """A random series-parallel graph of about ``ops`` ops.

    ``shared``: a fork makes one result that all branches read, else one for each. ``spiced``: share of ops with one more
    read from anywhere before (no longer series-parallel), workspace, a taken-over input, or a kept result.
    """
    draw = random.Random(seed)
    storages: list[Storage] = []
    rows: list[Op] = []

    def run(reads: list[int], results: int = 1) -> list[int]:
        first = len(storages)
        storages.extend(Storage(draw.choice(_SIZES)) for _ in range(results))
        workspace, reuse = 0, -1
        if draw.random() < spiced:
            kind = draw.randrange(4)
            if kind == 0:
                workspace = draw.choice([3, 9, 50])
            elif kind == 1 and reads:
                reuse = draw.choice(reads)
                storages[first] = Storage(storages[reuse].nbytes)
            elif kind == 2 and first:
                reads = list({*reads, draw.randrange(first)})
            else:
                storages[first] = Storage(storages[first].nbytes, output=True)
        rows.append(Op("op", tuple(reads), tuple(range(first, first + results)), workspace=workspace, reuse=reuse))
        return list(range(first, first + results))

    def build(size: int, entry: int) -> int:
        if size <= 1:
            return run([entry])[0]
        if size < 4 or draw.random() < 0.45:
            first = draw.randint(1, size - 1)
            return build(size - first, build(first, entry))
        branches = min(draw.choice([2, 2, 3, 4, 6]), size - 2)
        entries = run([entry]) * branches if shared else run([entry], branches)
        sizes = [1] * branches
        for _ in range(size - 2 - branches):
            sizes[draw.randrange(branches)] += 1
        return run([build(n, place) for n, place in zip(sizes, entries, strict=True)])[0]

    build(ops - 1, run([])[0])
    return Graph(tuple(rows), tuple(storages))
