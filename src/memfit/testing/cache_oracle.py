"""The slow twins of the cache simulators: what a hit, a miss and a distance are, in as few lines as possible.

``oracle`` is the definition for LRU levels that do not know of each other; ``any_oracle`` adds policies, inclusion,
write-backs and prefetching; ``oracle_distances`` are stack distances from a plain list. O(ways) or O(lines) an access.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from memfit.machine.cache import CacheLevel, Hierarchy

EMPTY = -1


def oracle(addresses: Iterable[int], hierarchy: Hierarchy) -> list[int]:
    """Accesses that each depth served (0 the first level, last: memory), of LRU levels that fill on every miss."""
    served = [0] * (len(hierarchy.levels) + 1)
    caches: list[dict[int, list[int]]] = [{} for _ in hierarchy.levels]
    for address in addresses:
        line, depth = address // hierarchy.line, 0
        for level, cache in zip(hierarchy.levels, caches, strict=True):
            ways = cache.setdefault(line % level.sets, [])
            hit = line in ways
            if hit:
                ways.remove(line)
            ways.insert(0, line)
            del ways[level.ways :]
            if hit:
                break
            depth += 1
        served[depth] += 1
    return served


def oracle_distances(addresses: Iterable[int], line: int = 64) -> list[int]:
    """For each access the different lines used since its line was used last; -1 at a first use."""
    stack: list[int] = []
    found = []
    for address in addresses:
        number = address // line
        found.append(stack.index(number) if number in stack else -1)
        if found[-1] >= 0:
            stack.remove(number)
        stack.insert(0, number)
    return found


class _Set:
    """One set: what it holds and which way leaves next."""

    def __init__(self, level: CacheLevel) -> None:
        self.policy, self.lines, self.bits = level.policy, [EMPTY] * level.ways, [0] * level.ways
        self.dirty: set[int] = set()

    def use(self, line: int) -> None:
        if self.policy == "lru":
            self.lines.remove(line)
            self.lines.insert(0, line)
        if self.policy == "plru":
            node = len(self.lines) + self.lines.index(line)
            while node > 1:
                self.bits[node // 2] = 1 - node % 2
                node //= 2

    def victim(self, draw: Sequence[int]) -> int:
        if self.policy in ("lru", "fifo"):
            return len(self.lines) - 1
        if EMPTY in self.lines:
            return self.lines.index(EMPTY)
        if self.policy == "random":
            return draw[0]
        node = 1
        while node < len(self.lines):
            node = 2 * node + self.bits[node]
        return node - len(self.lines)

    def enter(self, line: int, way: int) -> int:
        gone = self.lines[way]
        if self.policy in ("lru", "fifo"):
            self.lines.pop()
            self.lines.insert(0, line)
        else:
            self.lines[way] = line
            self.use(line)
        return gone

    def take(self, line: int) -> None:
        way = self.lines.index(line)
        if self.policy in ("lru", "fifo"):
            self.lines.pop(way)
            self.lines.append(EMPTY)
        else:
            self.lines[way] = EMPTY


class AnyOracle:
    """A hierarchy of any kind, one access at a time. ``served``, ``write_backs``, ``prefetches`` count what happened."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self.sets = [[_Set(level) for _ in range(level.sets)] for level in hierarchy.levels]
        count = len(hierarchy.levels)
        self.random = [(hierarchy.seed * 0x9E3779B97F4A7C15 + i) % 2**64 for i in range(count)]
        self.served, self.write_backs, self.prefetches = [0] * (count + 1), [0] * count, [0] * count

    def access(self, line: int, write: bool) -> int:
        """One access to a line; returns and counts the depth that served it."""
        exclusive = self.hierarchy.inclusion == "exclusive"
        depth = self._exclusive(line, write) if exclusive else self._demand(0, line, write)
        self.served[depth] += 1
        return depth

    def _set(self, i: int, line: int) -> _Set:
        return self.sets[i][line % len(self.sets[i])]

    def _has(self, i: int, line: int, write: bool) -> bool:
        place = self._set(i, line)
        if line not in place.lines:
            return False
        place.use(line)
        if write:
            place.dirty.add(line)
        return True

    def _draw(self, i: int) -> int:
        self.random[i] = z = (self.random[i] + 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        z ^= z >> 31
        return (z >> 32) * self.hierarchy.levels[i].ways >> 32

    def _enter(self, i: int, line: int, dirty: bool) -> tuple[int, bool]:
        place = self._set(i, line)
        needs = place.policy == "random" and EMPTY not in place.lines
        gone = place.enter(line, place.victim([self._draw(i)] if needs else []))
        was_dirty = gone in place.dirty
        place.dirty.discard(gone)
        if dirty:
            place.dirty.add(line)
        if gone != EMPTY and self.hierarchy.inclusion == "inclusive":
            for j in range(i):
                was_dirty |= self._take(j, gone)[1]
        self.write_backs[i] += was_dirty
        return gone, was_dirty

    def _take(self, i: int, line: int) -> tuple[bool, bool]:
        place = self._set(i, line)
        if line not in place.lines:
            return False, False
        place.take(line)
        dirty = line in place.dirty
        place.dirty.discard(line)
        return True, dirty

    def _demand(self, i: int, line: int, write: bool, *, counted: bool = True) -> int:
        if i == len(self.sets) or self._has(i, line, write):
            return i
        depth = self._demand(i + 1, line, False, counted=counted)
        self._lose(i, self._enter(i, line, write))
        if (
            counted
            and self.hierarchy.levels[i].prefetch == "next-line"
            and line + 1 not in self._set(i, line + 1).lines
        ):
            self.prefetches[i] += 1
            self._demand(i + 1, line + 1, False, counted=False)
            self._lose(i, self._enter(i, line + 1, False))
        return depth

    def _lose(self, i: int, victim: tuple[int, bool]) -> None:
        line, dirty = victim
        if (
            dirty
            and self.hierarchy.write_backs == "apply"
            and i + 1 < len(self.sets)
            and not self._has(i + 1, line, True)
        ):
            self._lose(i + 1, self._enter(i + 1, line, True))

    def _exclusive(self, line: int, write: bool) -> int:
        if self._has(0, line, write):
            return 0
        depth, dirty = 1, write
        while depth < len(self.sets):
            held, was_dirty = self._take(depth, line)
            dirty |= was_dirty
            if held:
                break
            depth += 1
        victim = self._enter(0, line, dirty)
        for i in range(1, len(self.sets)):
            if victim[0] == EMPTY:
                break
            victim = self._enter(i, *victim)
        return depth
