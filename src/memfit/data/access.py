"""How a loader gets at its rows: picked by what fits, what is cached, and what the order asks for.

fits the budget, or is in the page cache already    mapped       gathered from the map
read in its own order                               sequential   through the cache, dropped 32 MiB behind
shuffled, larger than the budget                    direct       read past the page cache, a pool or a batch at a time
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from memfit.data.dataset import Dataset
from memfit.data.order import OPEN_CHUNKS
from memfit.data.ordered_reads import piece_rows
from memfit.data.page_cache import LAG_BYTES, cached_share
from memfit.data.staging import SECTOR
from memfit.errors import BudgetError
from memfit.units import align

WAYS = ("auto", "mapped", "sequential", "direct")
LARGE_ROW = 128 << 10
"""Rows from here on are read one by one as fast as in chunks."""

_SMALL = 16


@dataclass(frozen=True)
class Access:
    """``way``; ``large``: columns that it is about, the others are mapped; ``chunk``, ``open``: of the order;
    ``staging``: bytes of private memory for rows on their way; ``cache``: bytes of page cache that may be in use.
    """

    way: str
    large: tuple[str, ...]
    chunk: int
    open: int
    staging: int
    cache: int


def choose_access(
    data: Dataset, names: list[str], shuffle: bool, chunk: int | None, budget: int | None, ring: int, batch: int, threads: int,
    way: str = "auto",
) -> Access:  # fmt: skip
    """The access for these columns. ``ring``: bytes of the batch buffers; ``budget``: bytes for everything, or None.

    Raises:
        BudgetError: the buffers alone need more than the budget.
    """
    sizes = {name: data.file(name).value_bytes for name in names}
    total = sum(sizes.values())
    room = (budget if budget is not None else available_memory() // 2) - ring
    order = 0 if not shuffle else (chunk or 1)
    opened = 1 << 40 if chunk is None else OPEN_CHUNKS
    if way == "auto":
        cached = budget is None and all(cached_share(data.file(name)) > 0.95 for name in names)
        if cached or total <= room:
            way = "mapped"
        else:
            way = "direct" if shuffle else "sequential"
    if way == "mapped":
        return Access(way, (), order, opened, 0, total)
    fixed = [name for name in names if not data.describe(name).ragged]
    if way == "sequential":
        needed = LAG_BYTES * 2
        staging = sum(align(size * piece_rows(size), SECTOR) for size in (data.describe(n).item_bytes for n in fixed))
        if budget is not None and room < needed + staging:
            raise BudgetError(
                ring + needed + staging, budget, "the batch buffers and what a reader keeps behind itself"
            )
        return Access(way, tuple(names), order, opened, staging, needed)
    large = tuple(name for name in fixed if sizes[name] * _SMALL > max(room, 1)) or tuple(fixed)
    small = sum(size for name, size in sizes.items() if name not in large)
    row = sum(data.describe(name).item_bytes for name in large)
    if not shuffle or (chunk is None and row >= LARGE_ROW):
        staging = max(threads, 1) * batch * (row + 2 * SECTOR * len(large))
        if budget is not None and staging + small > room:
            raise BudgetError(ring + staging + small, budget, "the batch buffers and the rows on their way into them")
        return Access(way, large, order, 1 << 40, staging, small)
    padding = 2 * (OPEN_CHUNKS + 2) * 2 * SECTOR * len(large)  # one chunk may wrap, one may be short
    if chunk is None:
        chunk = max(1, (room - small - padding) // (2 * OPEN_CHUNKS * row))
    staging = 2 * OPEN_CHUNKS * chunk * row + padding
    if budget is not None and staging + small > room:
        raise BudgetError(ring + staging + small, budget, f"two pools of {OPEN_CHUNKS} chunks, which a shuffle needs")
    return Access(way, large, chunk, OPEN_CHUNKS, staging, small)


def available_memory() -> int:
    """Bytes that this process may still take: what the system has free, and what its control group allows."""
    found = [8 << 30]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")] or found
    except (OSError, ValueError, IndexError):
        pass
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(limit).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return min(found)
