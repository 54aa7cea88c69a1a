"""Which PYTORCH_ALLOC_CONF suits a trace: every sensible setting tried, each at the smallest device it runs on.

Reserved bytes alone mislead: a split limit reserves several times more on an empty device, yet gives whole segments
back when memory is short and so may run on the smallest one, at the price of many synchronising driver calls. Each row
therefore holds the smallest workable capacity and the driver calls made there.

Smallest capacity: a replay that completes under a capacity never needed more than its own reserved peak, so it would
have gone the same way there; one that fails would have gone the same way up to the smallest sum it was refused. Both
tighten a bisection between the live peak and the reserved peak without limit. Completion is not monotone in theory
(what is released when depends on the capacity), so capacities below the answer are tried as well; see ``Row.proved``.
Cost: a dozen replays a setting.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from memfit import _core
from memfit.allocators.caching import kernel_arguments, running_bytes
from memfit.allocators.caching_columns import Columns, columns_of
from memfit.allocators.caching_settings import MIB, CachingSettings
from memfit.ir.requests import Requests

Progress = Callable[[str, int | None, int | None], None]
STEP = 2 * MIB
_PROOF_SHARE = 2  # events replayed to prove that nothing smaller works, in lengths of the trace


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. ``smallest_capacity``: bytes of the smallest device the trace runs on, driver calls are those there.

    ``reserved``: peak reserved on a device without limit, ``unlimited_calls`` the calls there. ``fits`` and
    ``calls_at_capacity``: at the capacity asked about, None without one. ``proved``: every smaller capacity was shown
    to fail; else only the step below it was.
    """

    settings: CachingSettings
    smallest_capacity: int
    driver_allocations: int
    driver_frees: int
    reserved: int
    unlimited_calls: int
    proved: bool
    fits: bool | None = None
    calls_at_capacity: int | None = None

    @property
    def string(self) -> str:
        """What to export as PYTORCH_ALLOC_CONF; '' for the defaults."""
        return str(self.settings)

    @property
    def driver_calls(self) -> int:
        """Driver calls at the smallest capacity, both ways."""
        return self.driver_allocations + self.driver_frees


@dataclass(frozen=True)
class Advice:
    """``rows``, best first, of which ``best`` is the first and ``string`` what to export for it.

    ``lower_bound``: the live peak; no allocator runs on less. ``default``: the row of the default settings.
    """

    rows: tuple[Row, ...]
    lower_bound: int
    capacity: int | None

    @property
    def best(self) -> Row:
        """The first row."""
        return self.rows[0]

    @property
    def string(self) -> str:
        """What to export for the best row."""
        return self.best.string

    @property
    def default(self) -> Row:
        """The row of the default settings."""
        return next(row for row in self.rows if row.settings == CachingSettings())


def candidates() -> tuple[CachingSettings, ...]:
    """The settings that are tried: each key alone, and the pairs that make sense together."""
    plain = CachingSettings()
    out = [plain, replace(plain, expandable_segments=True)]
    out += [replace(plain, max_split_size_mb=size) for size in (32, 64, 128, 256, 512)]
    out += [replace(plain, roundup_power2_divisions=divisions) for divisions in (2, 4, 8, 16)]
    nearly_all = replace(plain, memory_fraction=0.99)  # garbage is collected only where a part of the device is set
    out += [replace(nearly_all, garbage_collection_threshold=threshold) for threshold in (0.6, 0.8)]
    out += [replace(plain, large_segment_size_mb=size) for size in (64, 256)]
    out += [
        replace(plain, expandable_segments=True, roundup_power2_divisions=8),
        replace(plain, expandable_segments=True, large_segment_size_mb=12),
        replace(nearly_all, max_split_size_mb=128, garbage_collection_threshold=0.8),
        replace(plain, max_split_size_mb=128, roundup_power2_divisions=8),
    ]
    return tuple(out)


def advise(
    requests: Requests, capacity: int | None = None, progress: Progress | None = None,
    settings: tuple[CachingSettings, ...] | None = None,
) -> Advice:  # fmt: skip
    """Try ``settings`` (None: ``candidates()``) on a trace; with ``capacity`` (bytes) also on a device of that size.

    Ranked by the smallest capacity, then by driver calls there; with ``capacity``, settings that run on it come first,
    fewest driver calls there leading.

    Raises:
        TraceError: requests that no program can make.
    """
    tried = candidates() if settings is None else settings
    columns = {each.divisions: columns_of(requests, each) for each in tried}
    live = _live_peak(next(iter(columns.values())), len(requests)) if columns else 0
    done = 0
    rows: list[Row] = []
    with ThreadPoolExecutor(max_workers=2) as workers:
        started = [workers.submit(_row, columns[each.divisions], each, live, capacity) for each in tried]
        try:
            for each in started:
                rows.append(each.result())
                done += 1
                if progress is not None:
                    progress("trying allocator settings", done, len(tried))
        except BaseException:
            for each in started:
                each.cancel()
            raise
    return Advice(tuple(sorted(rows, key=_rank)), live, capacity)


def _rank(row: Row) -> tuple[object, ...]:
    there = (not row.fits, row.calls_at_capacity) if row.fits else (row.fits is False, 0)
    return (*there, row.smallest_capacity, row.driver_calls, len(row.string), row.string)


def _row(columns: Columns, settings: CachingSettings, live: int, capacity: int | None) -> Row:
    arguments = kernel_arguments(columns, settings)
    found = _core.smallest_capacity(*arguments, live, STEP, _PROOF_SHARE * len(columns.action))
    smallest, allocations, frees, reserved, unlimited, proved, _ = found
    fits = calls = None
    if capacity is not None:
        failed, _, mapped, unmapped, *_ = _core.replay_caching(*arguments, capacity, False)
        fits, calls = failed < 0, mapped + unmapped
    return Row(settings, smallest, allocations, frees, reserved, unlimited, proved, fits, calls)


def _live_peak(columns: Columns, events: int) -> int:
    handed_out = columns.rounded[columns.event_of_block]
    return int(running_bytes(columns, handed_out, events)[0].max(initial=0))
