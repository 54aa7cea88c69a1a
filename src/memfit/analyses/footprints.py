"""Misses of a variant of a kernel by a count of footprints, in microseconds: to choose what is worth simulating.

The outermost loops within which everything fits keep their lines; loops outside bring each array's part again, unless the
array does not move with them (layer conditions, as of Stengel et al. 2015, with capacity cut where rows start in few sets).
Exact for many tiled products, wrong by factors elsewhere: what is reported was simulated.
"""

from __future__ import annotations

import math
from dataclasses import replace

from memfit.ir.kernel import Kernel, Variant
from memfit.machine.cache import Hierarchy

FULL = 0.85
"""Of a level, what parts may fill before they are taken not to fit."""


class Footprints:
    """Counts footprints of variants of one kernel in one hierarchy."""

    def __init__(self, kernel: Kernel, hierarchy: Hierarchy) -> None:
        self.extents, self.line = kernel.extents, hierarchy.line
        self.levels = [(level.lines, level.sets) for level in hierarchy.levels]
        unique = dict.fromkeys((*kernel.reads, kernel.write))
        self.references = [
            (name, tuple(subscript.parts for subscript in subscripts), kernel.arrays[name])
            for name, subscripts in unique
        ]
        self.steps: dict[tuple[str, int | None], tuple[int, ...]] = {}
        self.moving = [{n for parts in subscripts for n, _ in parts} for _, subscripts, _ in self.references]

    def misses(self, variant: Variant) -> list[float]:
        """Projected misses of each level."""
        tiles = {name: size for name, size in variant.tiles if size < self.extents[name]}
        loops = [(name, -(-self.extents[name] // size), self.extents[name]) for name, size in tiles.items()]
        loops += [
            (name, tiles.get(name, self.extents[name]), tiles.get(name, self.extents[name])) for name in variant.order
        ]
        covered = dict.fromkeys(self.extents, 1)
        parts: list[
            list[tuple[float, int, int]]
        ] = []  # by depth from the inside: lines, lines between rows, lines of a row
        for name, _, reach in reversed(loops):
            covered[name] = reach
            parts.append([self._part(number, covered, variant) for number in range(len(self.references))])
        answer = []
        for lines, sets in self.levels:
            fits = 0
            for inside in parts:
                if sum(part for part, _, _ in inside) > FULL * lines or any(
                    part * sets > FULL * lines * _reached(sets, step, wide) for part, step, wide in inside
                ):
                    break
                fits += 1
            outside = list(reversed(loops[: len(loops) - fits]))
            inside = parts[fits - 1] if fits else [(1.0, 0, 1)] * len(self.references)
            total = 0.0
            for number, (again, _, _) in enumerate(inside):
                staying = True
                for depth, (name, trips, _) in enumerate(outside, fits):
                    if not staying:
                        again *= trips
                    elif name in self.moving[number]:  # its lines come in turn: each enters once while this loop runs
                        staying = False
                        again = min(again * trips, parts[depth][number][0])
                total += again
            answer.append(total)
        return answer

    def _part(self, number: int, covered: dict[str, int], variant: Variant) -> tuple[float, int, int]:
        """Lines that a reference touches while the loops cover so much; lines between its rows (0: any), lines of a row."""
        name, subscripts, array = self.references[number]
        row = variant.leading.get(name)
        steps = self.steps.get((name, row))
        if steps is None:
            steps = self.steps[name, row] = (array if row is None else replace(array, leading=row)).steps()
        reach = []
        for parts, extent, step in zip(subscripts, array.shape, steps, strict=True):
            length = 1
            for loop, coefficient in parts:
                length += abs(coefficient) * (covered[loop] - 1)
            reach.append((step, min(length, extent)))
        rows, block, apart = 1, array.item, 0
        for step, length in sorted(reach):
            if length == 1:
                continue
            if step <= max(block, self.line - 1):  # neighbours touch or share a line
                block += (length - 1) * step
            else:
                rows *= length
                apart = apart or step
        wide = max(1.0, block / self.line)
        return rows * wide, 0 if apart % self.line else apart // self.line, math.ceil(wide)


def _reached(sets: int, step: int, wide: int) -> int:
    """Sets that rows of ``wide`` lines reach which start ``step`` lines apart; all where 0."""
    return min(sets, sets // math.gcd(sets, step) * wide) if step else sets
