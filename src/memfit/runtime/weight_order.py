"""Where a program is in the order in which it uses its weights, and what that order is from now on.

The order was recorded before the run and is taken to repeat. An access that is not the next one is looked for further on
in the circle (a branch not taken); one that is nowhere in it has no place. A loop inside the program (a decoder that runs
again and again after one encoder) shows as the same surprise after the same accesses: run through twice, it is the new order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Sequence

LONGEST_HISTORY = 1 << 17
"""Accesses remembered; a loop of up to half as many is found."""


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
        self._history: list[Hashable] = []
        self._last: dict[Hashable, int] = {}

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
        """Call it for each access after ``follow``; a loop run through twice, which starts with ``key``, or None."""
        history = self._history
        found = None
        if not expected:
            length = len(history) - self._last.get(key, len(history))
            if length and 2 * length <= len(history) and history[-length:] == history[-2 * length : -length]:
                found = history[-length:]
            self._last[key] = len(history)
        if len(history) >= LONGEST_HISTORY:
            history.clear()
            self._last.clear()
        history.append(key)
        return found
