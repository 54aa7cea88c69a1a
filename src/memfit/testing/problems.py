"""Problems to test and measure planners with: drawn by hypothesis, or made from a seed.

``problems`` draws small Problems with every feature that a planner must respect, each allowed by ``check_problem``.
``zero_slack`` cuts a rectangle of time x bytes into buffers that fill it without a free byte: the load is the optimum,
and nothing but the cut (or another like it) reaches it. ``layered`` imitates a network: a forward part whose results
live until the backward part reads them, and scratch in between.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from memfit.errors import CapacityError, ProblemError
from memfit.planners.problem import Memory, Piece, Problem, simple_problem
from memfit.planners.validate import check_problem

FEATURES = ("alignment", "pins", "gaps", "same", "in_place")


@st.composite
def problems(
    draw: st.DrawFn, *, most: int = 7, instants: int = 6, largest: int = 6, features: tuple[str, ...] = FEATURES,
    memories: int = 1,
) -> Problem:  # fmt: skip
    """A Problem of up to ``most`` buffers with lifetimes in ``instants`` and sizes up to ``largest`` bytes.

    ``features``: which of FEATURES may occur; ``memories``: how many at most. Problems that contradict themselves are
    not drawn.
    """
    count = draw(st.integers(0, most))
    lower = [draw(st.integers(0, instants - 1)) for _ in range(count)]
    upper = [draw(st.integers(low + 1, instants)) for low in lower]
    size = [draw(st.integers(1, largest)) for _ in range(count)]
    problem = simple_problem(lower, upper, size)
    for feature in features:
        if count and draw(st.booleans()):
            changed = _with(draw, problem, feature, largest)
            if is_sound(changed):
                problem = changed
    if memories > 1 and draw(st.booleans()):
        total = sum(size) or 1
        rooms = [draw(st.one_of(st.none(), st.integers(1, total))) for _ in range(draw(st.integers(2, memories)))]
        homes = np.array([draw(st.integers(-1, len(rooms) - 1)) if draw(st.booleans()) else -1 for _ in range(count)])
        changed = replace(
            problem, memory=homes.astype(np.int64), memories=tuple(Memory(f"m{i}", c) for i, c in enumerate(rooms))
        )
        if is_sound(changed):
            problem = changed
    return problem


def is_sound(problem: Problem) -> bool:
    """Whether ``check_problem`` lets a Problem pass."""
    try:
        check_problem(problem)
    except (ProblemError, CapacityError):
        return False
    return True


def _with(draw: st.DrawFn, problem: Problem, feature: str, largest: int) -> Problem:
    """The Problem with one feature added to some of its buffers."""
    count = len(problem)
    if feature == "alignment":
        powers = st.sampled_from([1, 1, 2, 3, 4])
        return replace(problem, alignment=np.array([draw(powers) for _ in range(count)], dtype=np.int64))
    if feature == "pins":
        pins = np.full(count, -1, dtype=np.int64)
        for buffer in draw(st.sets(st.integers(0, count - 1), max_size=2)):
            pins[buffer] = draw(st.integers(0, largest)) * int(problem.alignment[buffer])
        return replace(problem, offset=pins)
    if feature == "gaps":
        chosen = draw(st.sets(st.integers(0, count - 1), max_size=3))
        return replace(problem, pieces={b: found for b in sorted(chosen) if (found := _pieces(draw, problem, b))})
    pairs = draw(st.sets(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=3))
    ordered = tuple(sorted({(min(p), max(p)) for p in pairs if p[0] != p[1]}))
    return replace(problem, same=ordered) if feature == "same" else replace(problem, in_place=ordered)


def _pieces(draw: st.DrawFn, problem: Problem, buffer: int) -> tuple[Piece, ...]:
    """Up to three pieces of one buffer, with windows."""
    edges = sorted(draw(st.sets(st.integers(int(problem.lower[buffer]), int(problem.upper[buffer])), max_size=6)))
    size, out = int(problem.size[buffer]), []
    for first, end in zip(edges[::2], edges[1::2], strict=False):
        low = draw(st.integers(0, size - 1))
        out.append(Piece(first, end, low, draw(st.integers(low + 1, size))))
    return tuple(out)


def zero_slack(seed: int, buffers: int, *, instants: int = 1000, height: int = 1024, unit: int = 1) -> Problem:
    """About ``buffers`` buffers that fill ``instants`` x ``height`` units of ``unit`` bytes exactly; capacity = load.

    Rectangles are cut in two, alternating at random between time and bytes, largest first.
    """
    draw = random.Random(seed)
    pieces = [(0, instants, 0, height)]
    while len(pieces) < buffers:
        pieces.sort(key=lambda r: (r[1] - r[0]) * (r[3] - r[2]))
        left, right, low, high = pieces.pop(-1 - draw.randrange(min(4, len(pieces))))
        if (draw.random() < 0.5 and right - left > 1) or high - low <= 1:
            if right - left <= 1:
                pieces.append((left, right, low, high))
                break
            at = draw.randint(left + 1, right - 1)
            pieces += [(left, at, low, high), (at, right, low, high)]
        else:
            at = draw.randint(low + 1, high - 1)
            pieces += [(left, right, low, at), (left, right, at, high)]
    draw.shuffle(pieces)
    return simple_problem(
        [p[0] for p in pieces], [p[1] for p in pieces], [(p[3] - p[2]) * unit for p in pieces], capacity=height * unit
    )


def layered(seed: int, layers: int, *, training: bool = True, unit: int = 512) -> Problem:
    """A network of ``layers``: each makes a result and scratch; ``training`` keeps results for a mirrored part."""
    draw = random.Random(seed)
    end = 2 * layers if training else layers
    rows: list[tuple[int, int, int]] = []
    for layer in range(layers):
        size = unit * draw.choice([1, 2, 4, 8, 16, draw.randint(1, 64)])
        last = min(layers, layer + draw.choice([2, 2, 2, 3, 6]))
        rows.append((layer, end - layer if training and draw.random() < 0.8 else last, size))
        if draw.random() < 0.5:
            rows.append((layer, layer + 1, unit * draw.randint(1, 32)))
        if training:
            back = end - 1 - layer
            rows.append((back, min(end, back + 2), size))
            if draw.random() < 0.3:
                rows.append((back, back + 1, unit * draw.randint(1, 32)))
    return simple_problem([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows])
