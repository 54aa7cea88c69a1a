"""Page replacement: what leaves a small fast memory, which policy misses least, and what the system's own pager did."""

from memfit.paging.faults import Faults, faults

__all__ = ["Faults", "faults"]
