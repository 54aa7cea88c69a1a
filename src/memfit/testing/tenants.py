"""Slow Python twins of segments and of domains' accounts, for tests: the rules alone, in plain bytes and integers."""

from __future__ import annotations

from dataclasses import dataclass, field

from memfit.errors import DomainBudgetError, SegmentError


@dataclass
class SegmentTwin:
    """A segment as a list of bytes: what ``runtime.segments.Segment`` reads, writes and refuses."""

    name: str
    limit: int
    protection: str = "read-write"
    content: bytearray = field(init=False)

    def __post_init__(self) -> None:
        self.content = bytearray(self.limit)

    def protect(self, protection: str) -> None:
        """As the segment's."""
        self.protection = protection

    def read(self, offset: int, nbytes: int) -> bytes:
        """As the segment's."""
        self._inside(offset, nbytes, "read")
        if self.protection == "none" and nbytes:
            raise SegmentError(self.name, offset, "read", "its protection is 'none'")
        return bytes(self.content[offset : offset + nbytes])

    def write(self, offset: int, data: bytes) -> None:
        """As the segment's."""
        self._inside(offset, len(data), "write")
        if self.protection != "read-write" and data:
            raise SegmentError(self.name, offset, "write", f"its protection is {self.protection!r}")
        self.content[offset : offset + len(data)] = data

    def _inside(self, offset: int, nbytes: int, access: str) -> None:
        if min(offset, nbytes) < 0 or offset + nbytes > self.limit:
            raise SegmentError(self.name, offset, access, "outside")


@dataclass
class AccountTwin:
    """The figures of a domain's account: what ``runtime.domains.Domain`` charges, credits and refuses."""

    name: str
    budget: int | None = None
    used: int = 0
    high_water: int = 0
    blocks: int = 0
    charges: int = 0
    refused: int = 0

    def charge(self, nbytes: int) -> None:
        """As the domain's."""
        if self.budget is not None and self.used + nbytes > self.budget:
            self.refused += 1
            raise DomainBudgetError(self.name, nbytes, self.used, self.budget)
        self.used += nbytes
        self.blocks += 1
        self.charges += 1
        self.high_water = max(self.high_water, self.used)

    def credit(self, nbytes: int) -> None:
        """As the domain's."""
        self.used -= nbytes
        self.blocks -= 1
