"""Where a program is in the order in which it uses its weights, and what that order is from now on.

The order was recorded before the run and is taken to repeat. An access that is not the next one is looked for further on
in the circle (a branch not taken); one that is nowhere in it has no place. A loop inside the program (a decoder that runs
again and again after one encoder) shows as the same jump back after the same accesses: seen twice, it is the new order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Sequence

LONGEST_LOOP = 1 << 16


class UseOrder:
    """Follows accesses along a circle of known ones. ``position``: of the next access expected."""

    def __init__(self, keys: Sequence[Hashable]) -> None:
        self.learn(keys)

    def learn(self, keys: Sequence[Hashable]) -> None:
        """Take ``keys`` as the circle from now on, its first one next."""
        self.keys = tuple(keys)
        self.position = 0
        self._places: dict[Hashable, list[int]] = {}
        for place, key in enumerate(self.keys):
            self._places.setdefault(key, []).append(place)
        self._trail: list[Hashable] = []
        self._before: list[Hashable] | None = None

    def follow(self, key: Hashable) -> tuple[int | None, bool]:
        """The place of the access ``key`` that happens now (None: it has none), and whether it was expected."""
        expected = bool(self.keys) and self.keys[self.position] == key
        if expected:
            place: int | None = self.position
        else:
            places = self._places.get(key)
            if places is None:
                place = None
            else:
                place = places[bisect_left(places, self.position) % len(places)]
        if place is not None:
            self.position = (place + 1) % len(self.keys)
        return place, expected

    def loop(self, key: Hashable, expected: bool) -> list[Hashable] | None:
        """Call it for each access after ``follow``; a loop seen twice in a row, which starts with ``key``, or None."""
        if expected:
            if len(self._trail) < LONGEST_LOOP:
                self._trail.append(key)
            return None
        trail, self._trail = self._trail, [key]
        repeated = trail == self._before and trail[0] == key
        self._before = trail
        return trail if repeated else None
