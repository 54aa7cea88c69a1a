"""What ``memfit.locality`` advises for kernels: the best variants found, timed against the program as written.

Without a proof the first two projections are named. With one, everything that was found is timed, and what is faster by
quartiles that do not overlap is advice, the fastest first; where nothing is, the best projection stays, without a claim. What
misses the first level clearly less than these is named after them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memfit.analyses.cache_misses import Misses
from memfit.analyses.miss_reasons import lower_bound_lines
from memfit.analyses.reuse import reuse_of_nest
from memfit.fitting.chain_search import search_fusion
from memfit.fitting.loop_search import Found, as_written, search
from memfit.fitting.timed_kernel import Timed, time_chains
from memfit.ir.kernel import Kernel, Variant
from memfit.ir.kernel_chain import KernelChain, lower_chain
from memfit.machine.cache import Hierarchy
from memfit.machine.spec import Machine
from memfit.report.locality_summary import AdviceRow

WORTH = 1.03
"""A change must be projected to save so much to be named without a measurement."""
MOST_ROWS = 2
CLEARLY = 0.9
"""Misses below this part of others' are clearly fewer."""
MOST_DRAWN = 500_000_000
"""Accesses of a change up to which its miss-ratio curve is counted."""


@dataclass(frozen=True)
class _Change:
    """A program that may replace the one as written."""

    row: AdviceRow
    chain: KernelChain


def advice_for(
    kernels: Sequence[Kernel], levels: Hierarchy, machine: Machine, touched: Mapping[str, int], *, prove: bool,
    notes: list[str], progress: Any = None,
) -> list[AdviceRow]:  # fmt: skip
    """Rows of advice for each kernel, and for all of them fused; ``notes`` takes what was tried in vain."""
    found_changes: list[_Change] = []
    best: list[Variant] = []
    for kernel in kernels:
        before = as_written(kernel, levels, machine)
        found = search(kernel, levels, machine, progress=progress)
        best.append(found[0].variant)
        bound = lower_bound_lines([kernel], levels.levels[0], touched)
        changes = [
            _Change(
                replace(_row(kernel, before, f, bound), whole=len(kernels) == 1), KernelChain((kernel,), (f.variant,))
            )
            for f in found
            if before.seconds > WORTH * f.seconds or _fewer(f.misses, before.misses)
        ]
        found_changes += _judged(KernelChain((kernel,), (before.variant,)), changes, notes, prove=prove)
    if len(kernels) > 1:
        before_all, *fused = search_fusion(kernels, best, levels, machine)
        bound = lower_bound_lines(kernels, levels.levels[0], touched)
        changes = [
            _Change(
                AdviceRow(
                    "all", f.words, {level.name: level.misses for level in f.misses.levels}, before_all.seconds / f.seconds,
                    numerics="bit-exact" if len(f.chain.kernels) == 1 else "reassociating", over_bound=_over(f.misses, bound),
                    by_array={level.name: level.by_array for level in f.misses.levels},
                ),
                f.chain,
            )
            for f in fused[:4]
            if before_all.seconds > WORTH * f.seconds or _fewer(f.misses, before_all.misses)
        ]  # fmt: skip
        found_changes += _judged(before_all.chain, changes, notes, prove=prove)
    found_changes.sort(key=lambda change: (change.row.kernel != "all", -(change.row.measured_speedup or 0)))
    rows = [change.row for change in found_changes]
    if rows and rows[0].whole:
        rows[0] = _drawn(found_changes[0], levels)
    return rows


def _drawn(change: _Change, levels: Hierarchy) -> AdviceRow:
    """The row with the miss-ratio curve of its program, where that is little to count."""
    nest = lower_chain(change.chain)
    if nest.count() > MOST_DRAWN:
        return change.row
    return replace(change.row, curve=tuple(reuse_of_nest(nest, (), levels.line).curve()))


def _judged(before: KernelChain, changes: Sequence[_Change], notes: list[str], *, prove: bool) -> list[_Change]:
    if not changes or not prove:
        likely = sorted(changes, key=lambda change: -change.row.projected_speedup)
        return _named([change for change in likely if change.row.projected_speedup > WORTH])
    timed = time_chains([before, *(change.chain for change in changes)])
    known = [
        replace(change, row=proved(change.row, timed[0], after))
        for change, after in zip(changes, timed[1:], strict=True)
    ]
    faster = sorted(
        (change for change in known if (change.row.measured_speedup or 0) > 1),
        key=lambda change: -(change.row.measured_speedup or 0),
    )
    if faster:
        return _named(faster)
    unclear = [
        change for change in known if change.row.measured_speedup is None and change.row.projected_speedup > WORTH
    ]
    if not unclear:
        notes.append(
            f"{known[0].row.kernel}: {len(known)} changes were timed and none is faster here than the order as written"
        )
    return sorted(unclear, key=lambda change: -change.row.projected_speedup)[:1]


def _named(ranked: list[_Change]) -> list[_Change]:
    """The first few, and the one with clearly the fewest first-level misses where it is another one."""

    def first_level(change: _Change) -> int:
        return next(iter(change.row.misses.values()), 0)

    named = ranked[:MOST_ROWS]
    fewest = min(ranked, key=first_level, default=None)
    if fewest is not None and first_level(fewest) < CLEARLY * min(first_level(change) for change in named):
        named.append(fewest)
    return named


def proved(row: AdviceRow, before: Timed, after: Timed) -> AdviceRow:
    """The row with what was measured; a speedup only where the spreads do not overlap."""
    apart = after.faster_than(before) or before.faster_than(after)
    return replace(
        row, measured_speedup=before.seconds / after.seconds if apart else None,
        measured=f"{after.rounds} rounds" if apart else "no claim: the spreads overlap",
        before_seconds=before.spread(), after_seconds=after.spread(),
    )  # fmt: skip


def _fewer(after: Misses, before: Misses) -> bool:
    return after.levels[0].misses < CLEARLY * before.levels[0].misses


def _over(misses: Misses, bound: int | None) -> float | None:
    return misses.levels[0].misses / bound if bound else None


def _row(kernel: Kernel, before: Found, change: Found, bound: int | None) -> AdviceRow:
    return AdviceRow(
        kernel.name, change.variant.words(kernel), {level.name: level.misses for level in change.misses.levels},
        before.seconds / change.seconds, numerics=numerics_of(kernel, change.variant), over_bound=_over(change.misses, bound),
        by_array={level.name: level.by_array for level in change.misses.levels},
    )  # fmt: skip


def numerics_of(kernel: Kernel, variant: Variant) -> str:
    """Bit-exact where every element's terms are still added in their order."""
    reductions = [name for name, _ in kernel.loops if name in kernel.reductions and kernel.extents[name] > 1]
    kept = [name for name in variant.order if name in reductions]
    tiled = [name for name, _ in variant.tiles if name in reductions]
    return "bit-exact" if kept == reductions and (len(reductions) == 1 or not tiled) else "reassociating"
