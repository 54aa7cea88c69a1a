"""What a simulation of paging found, as plain data: what the drawings share, and the object of --json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from memfit.units import format_bytes

STYLES = {
    "opt": ("#1d9a6c", ""), "lru": ("#d8664a", ""), "fifo": ("#e2a23a", "7 3"), "clock": ("#a8642f", "2 3"),
    "2q": ("#8a63b8", "9 3 2 3"), "arc": ("#3a6ea5", ""), "s3-fifo": ("#d45b9c", "5 2"), "sieve": ("#2ba3b8", ""),
    "mru": ("#8c9198", "1 3"),
}  # fmt: skip
"""Of each policy the colour and the dashes of its line: lines lie on each other, so dashes let both be seen."""


@dataclass(frozen=True)
class PolicyMisses:
    """One policy at the capacity. ``online``: it does not know the future. ``seconds``: CPU time of the simulation."""

    name: str
    title: str
    online: bool
    misses: int
    evictions: int
    hit_rate: float
    seconds: float


@dataclass(frozen=True)
class Curve:
    """``misses[i]`` at ``capacity[i]`` pages. ``exact``: every capacity is known from one pass, others simulated singly."""

    name: str
    title: str
    capacity: tuple[int, ...]
    misses: tuple[int, ...]
    exact: bool


@dataclass(frozen=True)
class PagingReport:
    """``accesses`` to ``pages`` pages of ``page_bytes`` (0: unknown); ``capacity`` in pages; ``rows``: fewest misses first."""

    target: str
    accesses: int
    pages: int
    page_bytes: int
    capacity: int
    rows: tuple[PolicyMisses, ...]
    curves: tuple[Curve, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data. ``cold_misses``: one for each page, which no policy avoids."""
        return {
            "target": self.target, "accesses": self.accesses, "pages": self.pages, "page_bytes": self.page_bytes or None,
            "capacity": {"pages": self.capacity, "bytes": self.capacity * self.page_bytes or None},
            "cold_misses": self.pages, "policies": [asdict(row) for row in self.rows],
            "curves": [
                {"name": c.name, "exact": c.exact, "capacity": list(c.capacity), "misses": list(c.misses)}
                for c in self.curves
            ],
            "seconds": self.seconds, "notes": list(self.notes),
        }  # fmt: skip

    def size(self, pages: int) -> str:
        """``pages`` as people read it, with the bytes where they are known."""
        text = f"{pages:,} page{'' if pages == 1 else 's'}"
        return f"{text} ({format_bytes(pages * self.page_bytes)})" if self.page_bytes else text


def drawing_order(curves: tuple[Curve, ...]) -> list[Curve]:
    """Solid lines below dashed ones, so that two on one place are both seen; of each kind the first on top."""
    dashed = {name for name, (_, dashes) in STYLES.items() if dashes}
    below = [curve for curve in curves if curve.name not in dashed]
    return below[::-1] + [curve for curve in curves if curve.name in dashed][::-1]


def on_one_line(curves: tuple[Curve, ...]) -> str:
    """Which policies miss the same at every capacity drawn, as a sentence; empty where none do."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for curve in curves:
        groups.setdefault(curve.misses, []).append(curve.title)
    texts = [f"{', '.join(names[:-1])} and {names[-1]}" for names in groups.values() if len(names) > 1]
    return f"On one line: {'; '.join(texts)}." if texts else ""


def paging_headline(report: PagingReport) -> str:
    """The answer in one sentence."""
    text = f"With {report.size(report.capacity)} of {report.pages:,} in memory"
    parts = []
    optimal = next((row for row in report.rows if not row.online), None)
    online = [row for row in report.rows if row.online]
    if optimal is not None:
        parts.append(f"knowing the future (OPT) hits {100 * optimal.hit_rate:.1f} %")
    if online:
        best = online[0].hit_rate
        names = [row.title for row in online if row.hit_rate == best]
        which = " and ".join(names) if len(names) < 3 else f"{len(names)} policies, {names[0]} among them,"
        parts.append(f"of those that do not, {which} {'hits' if len(names) == 1 else 'hit'} {100 * best:.1f} %")
        lru = next((row for row in online if row.name == "lru"), None)
        if lru is not None and lru.hit_rate < best:
            parts.append(f"LRU hits {100 * lru.hit_rate:.1f} %")
    return f"{text}, {'; '.join(parts)}"
