"""Families of large placement problems, generated: the planner is not to be tuned to the few that were published.

Each takes a number of buffers (met about) and a seed, and returns (lower, upper, size) columns: lifetimes [lower, upper)
in instants, sizes in bytes. What they stand for is the first line of each function.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Columns = tuple[Ints, Ints, Ints]
KIB = 1024


def _columns(rows: list[tuple[int, int, int]]) -> Columns:
    lower, upper, size = np.array(rows, dtype=np.int64).T.copy()
    return lower, upper, size


def training(count: int, seed: int) -> Columns:
    """One training step: activations freed in reverse by backward, gradients that stay, temporaries, weights."""
    draw = np.random.default_rng(seed)
    layers = max(2, count // 12)
    wide = draw.choice([64, 96, 128, 256, 512], 1 + layers // 16).repeat(16)[:layers] * 512
    span, rows = 10, []
    half = span * layers
    for layer in range(layers):
        at, back, unit = span * layer, 2 * half - span * (layer + 1), int(wide[layer])
        rows.append((0, 2 * half + layers, unit * 4))
        rows.append((back + 4, 2 * half + layer, unit * 4))
        for step, factor in enumerate((1, 4, 4, 1)):
            kept = draw.random() < 0.8
            rows.append((at + step, back + span - 1 - step if kept else at + step + 2, unit * factor * 8))
            rows.append((back + step * 2, back + step * 2 + 3, unit * factor * 8))
        rows.append((at + 1, at + 3, unit * int(draw.integers(1, 64))))
        rows.append((back + 3, back + 6, unit * int(draw.integers(1, 64))))
    return _columns(rows)


def micro_batches(count: int, seed: int) -> Columns:
    """A pipeline stage, one forward and one backward by turns: activations of each micro-batch live in a moving window."""
    draw = np.random.default_rng(seed)
    layers, depth = int(draw.integers(6, 14)), int(draw.integers(3, 9))
    batches = max(depth + 1, count // (layers * 4))
    sizes = draw.integers(8, 400, layers) * KIB
    clock, rows, held = 0, [], []
    for turn in range(batches + depth):
        if turn < batches:
            tokens = draw.choice([256, 512, 768, 1024])
            acts = []
            for layer in range(layers):
                acts.append((clock, int(sizes[layer] * tokens // 512)))
                rows.append((clock, clock + 2, int(sizes[layer] * draw.integers(1, 4))))
                clock += 2
            held.append(acts)
        if turn >= depth:
            for at, nbytes in reversed(held.pop(0)):
                rows.append((at, clock + 2, nbytes))
                rows.append((clock, clock + 3, nbytes))
                rows.append((clock + 1, clock + 2, int(nbytes * draw.random()) + 1))
                clock += 2
    rows.extend((0, clock + 2, int(nbytes) * 3) for nbytes in sizes)
    return _columns(rows)


def inference(count: int, seed: int) -> Columns:
    """A deep network run forward: short lives, skip connections of many lengths, sizes that change by stages."""
    draw = np.random.default_rng(seed)
    stage = draw.choice([1, 2, 3, 4, 6, 8, 16], 1 + count // 40).repeat(40)[:count]
    lower = np.arange(count, dtype=np.int64)
    length = np.where(draw.random(count) < 0.15, draw.geometric(0.05, count), draw.integers(1, 4, count)) + 1
    return lower, lower + length, stage * draw.integers(1, 33, count) * 256


def uniform(count: int, seed: int) -> Columns:
    """Lifetimes and sizes at random, evenly: nothing to exploit; lives of up to a hundredth of the time."""
    draw = np.random.default_rng(seed)
    lower = draw.integers(0, 4 * count, count)
    return lower, lower + draw.integers(1, max(2, count // 25), count), draw.integers(1, 1 << 20, count)


def heavy_tailed(count: int, seed: int) -> Columns:
    """Lifetimes and sizes of very different scale (log-normal), as in traces of whole programs."""
    draw = np.random.default_rng(seed)
    lower = draw.integers(0, 4 * count, count)
    length = np.minimum(4 * count, np.exp(draw.normal(3.0, 2.2, count))).astype(np.int64) + 1
    return lower, lower + length, np.exp(draw.normal(9, 2.5, count)).astype(np.int64) + 1


def bimodal(count: int, seed: int) -> Columns:
    """Few large long-lived buffers between many small short-lived ones."""
    draw = np.random.default_rng(seed)
    lower = draw.integers(0, 4 * count, count)
    large = draw.random(count) < 0.03
    length = np.where(large, draw.integers(count // 20, count // 3, count), draw.integers(1, 60, count))
    size = np.where(large, draw.integers(1 << 18, 1 << 22, count), draw.integers(1 << 6, 1 << 16, count))
    return lower, lower + length, size


def first_in_first_out(count: int, seed: int) -> Columns:
    """Queues: each buffer lives about as long as the others, freed in order of allocation, sizes of a few classes."""
    draw = np.random.default_rng(seed)
    lower = 2 * np.arange(count, dtype=np.int64)
    size = draw.choice(draw.integers(1, 4096, 12), count) * 64
    return lower, lower + 400 + draw.integers(0, 40, count), size


def perfect(count: int, seed: int) -> Columns:
    """A full rectangle cut up at random: the load is the same at every instant, and a placement without a hole exists."""
    draw = np.random.default_rng(seed)
    cells, done = [(0, 40 * count, 0, 1 << 30)], []
    while len(cells) + len(done) < count:
        begin, end, low, high = cells.pop(int(draw.integers(len(cells))))
        if draw.random() < 0.62 and end - begin >= 20:
            cut = int(begin + (end - begin) * draw.uniform(0.2, 0.8))
            cells += [(begin, cut, low, high), (cut, end, low, high)]
        elif high - low >= 64:
            cut = int(low + (high - low) * draw.uniform(0.2, 0.8))
            cells += [(begin, end, low, cut), (begin, end, cut, high)]
        else:
            done.append((begin, end, low, high))
    return _columns([(begin, end, high - low) for begin, end, low, high in cells + done])


def repeated(columns: Columns, times: int, seed: int) -> Columns:
    """A trace run again and again, one run after the other, each with a fifth of its sizes changed by up to 30 %."""
    draw = np.random.default_rng(seed)
    lower, upper, size = columns
    span = int(upper.max()) - int(lower.min())
    changed = [
        np.where(draw.random(len(size)) < 0.2, size * draw.uniform(0.7, 1.3, len(size)), size) for _ in range(times)
    ]
    shift = np.repeat(np.arange(times) * span, len(size))
    sizes = np.maximum(1, np.concatenate(changed)).astype(np.int64)
    return np.tile(lower, times) + shift, np.tile(upper, times) + shift, sizes


FAMILIES: dict[str, Callable[[int, int], Columns]] = {
    family.__name__: family
    for family in (training, micro_batches, inference, uniform, heavy_tailed, bimodal, first_in_first_out, perfect)
}
