"""Descriptions of caches: levels from the processor outwards, and what two levels have to do with each other.

A description is checked where it is made, so that the simulators need not doubt it. Sizes that are no power of two are
taken as they are: a line lies in the set ``line % sets`` (where a processor hashes lines instead, nobody publishes how). A size
that is not ways x line x a whole number of sets describes no cache and is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from memfit.errors import MachineError
from memfit.units import SizeError, parse_bytes

POLICIES = ("lru", "plru", "fifo", "random")
INCLUSIONS = ("neither", "inclusive", "exclusive")
PREFETCHES = ("off", "next-line")
_MOST_SETS = 1 << 26


@dataclass(frozen=True)
class CacheLevel:
    """One level of a cache, or of a TLB, whose lines are pages.

    Attributes:
        name: "L1", "L2", ...
        bytes: what it holds; a multiple of ways x line.
        ways: lines in a set, >= 1.
        line: bytes of a line, a power of two.
        policy: "lru", "plru" (a tree of bits; ways a power of two), "fifo" or "random".
        prefetch: "off", or "next-line": a missing line brings the one after it.
    """

    name: str
    bytes: int
    ways: int
    line: int = 64
    policy: str = "lru"
    prefetch: str = "off"

    def __post_init__(self) -> None:
        if self.bytes <= 0 or self.ways <= 0 or self.line <= 0:
            raise MachineError(
                self.name, f"{self.bytes} bytes, {self.ways} ways, lines of {self.line}: all must be positive"
            )
        if self.line & (self.line - 1):
            raise MachineError(self.name, f"lines of {self.line} bytes are no power of two", "64 is what most have")
        if self.bytes % (self.ways * self.line):
            whole = self.bytes // (self.ways * self.line) * self.ways * self.line
            raise MachineError(
                self.name, f"{self.bytes} bytes are no multiple of {self.ways} ways x {self.line} bytes",
                f"{whole or self.ways * self.line} bytes or other ways would be",
            )  # fmt: skip
        if self.sets > _MOST_SETS:
            raise MachineError(self.name, f"{self.sets} sets are more than can be simulated ({_MOST_SETS})")
        if self.policy not in POLICIES:
            raise MachineError(self.name, f"no replacement policy {self.policy!r}", f"there are {', '.join(POLICIES)}")
        if self.policy == "plru" and self.ways & (self.ways - 1):
            raise MachineError(
                self.name, f"a tree of bits over {self.ways} ways", "take lru, or ways that are a power of two"
            )
        if self.prefetch not in PREFETCHES:
            raise MachineError(self.name, f"no prefetching {self.prefetch!r}", f"there are {', '.join(PREFETCHES)}")

    @property
    def sets(self) -> int:
        """Sets of ``ways`` lines."""
        return self.bytes // (self.ways * self.line)

    @property
    def lines(self) -> int:
        """Lines that it holds."""
        return self.bytes // self.line


@dataclass(frozen=True)
class Hierarchy:
    """Levels from the processor outwards, of one line size.

    Attributes:
        levels: at least one, at most 16; outer levels may be of any size.
        inclusion: "neither" (a line enters every level on its way), "inclusive" (a level that loses a line takes it from the
            levels inside) or "exclusive" (a level holds what the one inside lost).
        write_backs: "count" dirty victims, or "apply": also write them to the next level.
        seed: of random replacement.
    """

    levels: tuple[CacheLevel, ...]
    inclusion: str = "neither"
    write_backs: str = "count"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.levels) <= 16:
            raise MachineError("hierarchy", f"{len(self.levels)} levels", "describe 1 to 16")
        if len({level.line for level in self.levels}) > 1:
            sizes = ", ".join(f"{level.name} {level.line}" for level in self.levels)
            raise MachineError(
                "hierarchy", f"lines of different sizes ({sizes} bytes)", "simulate levels of one line size"
            )
        if self.inclusion not in INCLUSIONS:
            raise MachineError("hierarchy", f"no inclusion {self.inclusion!r}", f"there are {', '.join(INCLUSIONS)}")
        if self.write_backs not in ("count", "apply"):
            raise MachineError("hierarchy", f"no write-backs {self.write_backs!r}", "there are count and apply")
        if self.inclusion == "exclusive" and any(level.prefetch != "off" for level in self.levels):
            raise MachineError("hierarchy", "prefetching into exclusive levels is not simulated", "set prefetch off")

    @property
    def line(self) -> int:
        """Bytes of a line."""
        return self.levels[0].line


def hierarchy_of(levels: Iterable[Mapping[str, Any]], **settings: Any) -> Hierarchy:
    """A hierarchy from rows as ``memfit machine --json`` prints them; unknown keys are passed over.

    Raises:
        MachineError: a row lacks its size or ways, or describes no cache.
    """
    found = []
    for number, row in enumerate(levels, 1):
        name = str(row.get("name", f"L{number}"))
        try:
            size = row["bytes"]
            found.append(
                CacheLevel(
                    name, parse_bytes(size) if isinstance(size, str) else int(size), int(row["ways"]), int(row.get("line", 64)),
                    str(row.get("policy", "lru")), str(row.get("prefetch", "off")),
                )
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, SizeError) as error:
            why = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise MachineError(name, f"its row is damaged: {why}", "it needs bytes and ways") from error
    return Hierarchy(tuple(found), **settings)


def parse_hierarchy(text: str) -> Hierarchy:
    """``"48KiB/12,1MiB/16,32MiB/16"`` -> levels L1, L2, L3 of 64-byte lines; ``/fifo`` after the ways names a policy.

    Raises:
        MachineError: it is not of that form, or describes no cache.
    """
    levels = []
    for number, part in enumerate(text.split(","), 1):
        pieces = [piece.strip() for piece in part.split("/")]
        if len(pieces) not in (2, 3):
            raise MachineError(f"L{number}", f"{part.strip()!r} is no level", "write SIZE/WAYS, such as 48KiB/12")
        try:
            size, ways = parse_bytes(pieces[0]), int(pieces[1])
        except (SizeError, ValueError) as error:
            raise MachineError(f"L{number}", str(error), "write SIZE/WAYS, such as 48KiB/12") from error
        levels.append(CacheLevel(f"L{number}", size, ways, policy=pieces[2] if len(pieces) == 3 else "lru"))
    return Hierarchy(tuple(levels))


def fully_associative(lines: int, line: int = 64) -> Hierarchy:
    """One level of ``lines`` lines in one set."""
    return Hierarchy((CacheLevel("cache", lines * line, lines, line),))


def with_policy(hierarchy: Hierarchy, policy: str) -> Hierarchy:
    """The same levels under another replacement policy."""
    return replace(hierarchy, levels=tuple(replace(level, policy=policy) for level in hierarchy.levels))
