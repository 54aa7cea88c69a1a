"""`simulate_paging`: which replacement policy misses least for a program's accesses, at one capacity and at all.

accesses --> every policy at the capacity --> misses, hits, evictions
        \\-> LRU, OPT: all capacities in one pass; others: chosen capacities --> miss curves
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from memfit.api.access_sources import accesses_from
from memfit.errors import TargetError
from memfit.ir.graph import Graph
from memfit.ir.trace import Trace
from memfit.paging.accesses import Accesses
from memfit.paging.policies import chosen_capacities, miss_curve, policies_named
from memfit.paging.policy import ReplacementPolicy
from memfit.report.paging_summary import Curve, PagingReport, PolicyMisses
from memfit.units import parse_bytes

Progress = Callable[[str, int | None, int | None], None]


def simulate_paging(
    target: str | Path | Accesses | Trace | Graph | Sequence[int], capacity: int | str = "50%", *,
    policies: Sequence[str] | None = None, page: int | str | None = None, curve: bool = False,
    progress: Progress | None = None,
) -> PagingReport:  # fmt: skip
    """Each policy's misses, hits and evictions for the same accesses.

    >>> import memfit
    >>> report = memfit.simulate_paging([0, 1, 2, 0, 1, 2], 2)
    >>> [(row.name, row.misses) for row in report.rows if row.name in ("opt", "lru")]
    [('opt', 4), ('lru', 6)]

    Args:
        target: a file (.csv id[,size]; .npz trace; .json graph; text of page numbers), or the thing itself: Accesses,
            Trace, Graph, or page numbers.
        capacity: pages as a number; bytes as a text with a unit ("64MiB"); or a share of the pages ("50%").
        policies: names of ``memfit.paging.policies.POLICIES``; left out, all.
        page: bytes of a page, or a size; left out, the size of the objects where all have one, else 4 KiB or more.
        curve: also misses at other capacities.
        progress: called with (description, done, total).

    Raises:
        TraceError: a file that holds no accesses.
        TargetError: no such file or policy, or a capacity that is none.
    Cost: 3-15 ns an access and policy; with ``curve`` about 50 times that, LRU and OPT excepted.
    """
    say = progress or (lambda text, done, total: None)
    begun = time.process_time()
    page_bytes = None if page is None else parse_bytes(page)
    say("reading the accesses", None, None)
    source = accesses_from(target, page_bytes)
    trace = source.accesses
    try:
        named = policies_named(policies)
    except ValueError as error:
        raise TargetError(source.name, str(error)) from None
    room = _pages(capacity, trace, source.name)
    notes = list(source.notes)
    if room >= trace.pages:
        notes.append("the capacity holds every page: each misses once, whatever the policy")
    rows = [_simulated(policy, trace, room, say) for policy in named.values()]
    rows.sort(key=lambda row: row.misses)
    curves = _curves(list(named.values()), trace, room, say) if curve else ()
    return PagingReport(
        source.name, len(trace), trace.pages, trace.page_bytes, room, tuple(rows), curves, time.process_time() - begun,
        tuple(notes),
    )  # fmt: skip


def _pages(capacity: int | str, trace: Accesses, name: str) -> int:
    """A capacity as written, in pages."""
    text = str(capacity).strip()
    hint = "write pages (64), bytes (64MiB) or a share of the pages (50%)"
    if text.isdecimal():
        pages = int(text)
    elif text.endswith("%"):
        try:
            share = float(text[:-1])
        except ValueError:
            share = 0.0
        if not 0 < share <= 100:
            raise TargetError(name, f"{text!r} is no share of its {trace.pages} pages", hint)
        return max(1, int(share * trace.pages / 100))
    else:
        nbytes = parse_bytes(text)
        if not trace.page_bytes:
            why = f"its accesses have no sizes, so {text} is no number of pages"
            raise TargetError(name, why, "write the capacity in pages, or name the bytes of a page (--page 4KiB)")
        pages = nbytes // trace.page_bytes
        text = f"{text} ({pages} pages of {trace.page_bytes} bytes)"
    if pages < 1:
        raise TargetError(name, f"a capacity of {text} holds no page; the smallest is 1 page", hint)
    return pages


def _simulated(policy: ReplacementPolicy, trace: Accesses, capacity: int, say: Progress) -> PolicyMisses:
    say(f"simulating {policy.title}", None, None)
    begun = time.process_time()
    out = policy.misses(trace, capacity)
    seconds = time.process_time() - begun
    return PolicyMisses(policy.name, policy.title, policy.online, out.misses, out.evictions, out.hit_rate, seconds)


def _curves(policies: list[ReplacementPolicy], trace: Accesses, room: int, say: Progress) -> tuple[Curve, ...]:
    capacities = np.union1d(chosen_capacities(trace.pages), [min(room, trace.pages)]).astype(np.int64)
    out = []
    for done, policy in enumerate(policies):
        found = miss_curve(policy, trace, capacities, lambda: say(f"curve of {policy.title}", done, len(policies)))  # noqa: B023
        out.append(
            Curve(policy.name, policy.title, tuple(capacities.tolist()), tuple(found.misses.tolist()), found.exact)
        )
    return tuple(out)
