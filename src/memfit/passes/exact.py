"""The exact passes of a Program, run to a fixpoint, verified between passes, judged by bytes.

    identities, fold, the front end's own rewrites, merge, dead code   ... until nothing changes, each result verified
    judge: constants + live peak, at several sizes of the open dimensions; what raises one of them is not kept
    growing folds are tried after, and kept only where constants + live peak do not rise for it
    at last the order of operations with the least peak

One implementation serves every front end: passes here know the ops table and types; what only one framework's operators
need (convolution with batch normalisation, reshape targets) comes in as ``rewrites``. The numerics of each rewrite are
stated where it stands; the verb that calls this compares outputs by running both.

Cost: O(rounds x operations); two to four rounds, about 0.3 ms an operation in all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from memfit.analyses.liveness import simulate
from memfit.analyses.lowering import lower, numbers_for, resized
from memfit.errors import TargetError
from memfit.ir.graph import Graph
from memfit.ir.program import Program, programs
from memfit.ir.verify import verify
from memfit.passes.dead_code import remove_dead_code
from memfit.passes.fold import folding, growing
from memfit.passes.identities import remove_identities
from memfit.passes.merge import merge_equal
from memfit.passes.order import order_for_peak
from memfit.passes.unshare import unshare
from memfit.passes.workbench import Pass, Workbench, in_bodies

_ROUNDS = 12
SLACK = 1024
"""Bytes that do not count as a rise: targets of reshapes that became constants take some hundred."""
SAMPLES = (1, 4, 64)
"""Numbers that open dimensions take, all of them the same one, when two programs are held against each other."""


@dataclass(frozen=True)
class Optimized:
    """The smaller program. ``log``: (pass, operations before, after), in order. ``kept_growth``: constants grew for peak."""

    program: Program
    log: tuple[tuple[str, int, int], ...]
    kept_growth: bool = False
    refused: tuple[str, ...] = field(default=())


def possible_samples(program: Program, bound: Mapping[str, int]) -> tuple[int, ...]:
    """The SAMPLES at which every size is possible: a network that halves its images five times has none at 1."""
    possible = []
    for sample in SAMPLES:
        try:
            numbers = numbers_for(program, bound, default=sample)
            lower(program, numbers, in_place=False)
        except TargetError:
            continue
        possible.append(sample)
    return tuple(possible) or (224,)


def totals(program: Program, bound: Mapping[str, int], samples: Sequence[int] = SAMPLES) -> tuple[int, ...]:
    """Constants + live peak in stored order, projected, at each sample of the dimensions that ``bound`` leaves open."""
    found: list[int] = []
    graph: Graph | None = None
    for sample in samples:
        numbers = numbers_for(program, bound, default=sample)
        graph = lower(program, numbers, in_place=False) if graph is None else resized(graph, program, numbers)
        found.append(simulate(graph, range(len(graph.ops))).peak if graph.ops else graph.base_bytes)
        if not program.dimensions or set(program.dimensions) <= set(bound):
            break
    return tuple(found)


def optimize_program(
    program: Program, bench: Workbench, *, rewrites: Sequence[tuple[str, Pass]] = (), bound: Mapping[str, int] | None = None,
    reorder: bool = True, progress: Callable[[str], None] | None = None,
) -> Optimized:  # fmt: skip
    """The program with fewer operations and never more constants + live peak.

    Args:
        program: verified; its outputs keep names and values.
        bench: the front end's side.
        rewrites: named passes of the front end, run in every round.
        bound: numbers of dimensions, for judging bytes; others take the SAMPLES.
        reorder: put operations in the order with the least peak at the end.
        progress: called with what is done now.
    """
    say = progress or (lambda text: None)
    bound = bound or {}
    log: list[tuple[str, int, int]] = []
    say("removing, merging, folding")
    best = _fixpoint(program, bench, rewrites, folding(grow=False), log)
    samples = possible_samples(program, bound)
    before = totals(program, bound, samples)
    best_totals = totals(best, bound, samples)
    grew = False
    if any(growing(p) for p in programs(best)):
        say("folding what grows constants")
        grown_log: list[tuple[str, int, int]] = []
        grown = _fixpoint(program, bench, rewrites, folding(grow=True), grown_log)
        grown_totals = totals(grown, bound, samples)
        no_worse = _no_more(grown_totals, best_totals) or (
            _no_more(grown_totals, before) and not _no_more(best_totals, before)
        )
        smaller = grown.constant_bytes <= best.constant_bytes or any(
            a < b for a, b in zip(grown_totals, best_totals, strict=True)
        )
        fewer = grown.node_count <= 0.75 * best.node_count and _no_more(grown_totals, before)
        if fewer or (no_worse and smaller):
            best, best_totals, log, grew = grown, grown_totals, grown_log, True
    say("parting what is cheap to make again")
    best, parted = unshare(
        best,
        numbers_for(best, bound, default=samples[-1]),
        lambda p: totals(p, bound, samples),
        tuple(b + SLACK for b in before),
    )
    if parted:
        log.append(("unshare", best.node_count - len(parted), best.node_count))
        best_totals = totals(best, bound, samples)
    refused: list[str] = []
    if not _no_more(best_totals, before):
        say("finding what raises the peak")
        best, refused = _least_change(program, bench, rewrites, bound, samples, before, best)
    if reorder:
        say("ordering operations")
        best = in_least_order(best, bound, samples)
    return Optimized(best, tuple(log), grew, tuple(refused))


def _no_more(after: Sequence[int], before: Sequence[int]) -> bool:
    return all(a <= b + SLACK for a, b in zip(after, before, strict=True))


def _fixpoint(
    program: Program, bench: Workbench, rewrites: Sequence[tuple[str, Pass]], fold: Pass, log: list[tuple[str, int, int]]
) -> Program:  # fmt: skip
    passes = [
        ("identities", in_bodies(remove_identities)), ("fold", in_bodies(fold)),
        *((name, in_bodies(work)) for name, work in rewrites),
        ("merge", in_bodies(merge_equal)), ("dead code", in_bodies(remove_dead_code)),
    ]  # fmt: skip
    for _ in range(_ROUNDS):
        start = program
        for name, work in passes:
            after = work(program, bench)
            if after is not program:
                verify(after, where=f"{program.name} after the pass {name!r}")
                log.append((name, program.node_count, after.node_count))
                program = after
        if program is start:
            break
    return program


def _least_change(
    program: Program, bench: Workbench, rewrites: Sequence[tuple[str, Pass]], bound: Mapping[str, int],
    samples: Sequence[int], before: Sequence[int], wanted: Program,
) -> tuple[Program, list[str]]:  # fmt: skip
    """A program that raises nothing: another order may do, else passes are left out one by one."""
    ordered = in_least_order(wanted, bound, samples)
    if _no_more(totals(ordered, bound, samples), before):
        return ordered, []
    refused: list[str] = []
    names = [name for name, _ in rewrites]
    for left_out in [[name] for name in names] + [names]:
        chosen = [(name, work) for name, work in rewrites if name not in left_out]
        tried = in_least_order(_fixpoint(program, bench, chosen, folding(grow=False), []), bound, samples)
        if _no_more(totals(tried, bound, samples), before):
            return tried, left_out
    refused = [*names, "merge"]
    bare = remove_dead_code(remove_identities(program, bench), bench)
    return (bare if _no_more(totals(bare, bound, samples), before) else program), refused


def in_least_order(
    program: Program, bound: Mapping[str, int], samples: Sequence[int] = SAMPLES, *, time_limit: float = 0.5
) -> Program:  # fmt: skip
    """``program`` with its operations in the order with the least live peak found; the same object where none is better.

    The order is found at the largest sample of the open dimensions and kept where no sample's peak rises.
    """
    given = totals(program, bound, samples)
    numbers = numbers_for(program, bound, default=samples[-1])
    graph = lower(program, numbers, in_place=False)
    if len(graph.ops) < 2:
        return program
    ordered = order_for_peak(graph, time_limit=time_limit)
    if ordered.peak >= ordered.given_peak:
        return program
    rank = _ranks(program, graph_positions(program), ordered.schedule)
    moved = replace(program, operations=tuple(program.operations[index] for index in rank))
    verify(moved, where=f"{program.name} after ordering")
    after = totals(moved, bound, samples)
    return moved if _no_more(after, given) and after != given else program


def graph_positions(program: Program) -> list[int | None]:
    """For each operation its index among the ops of the lowered Graph; None where it vanished there (a view)."""
    from memfit.ir.ops.table import facts

    positions: list[int | None] = []
    count = 0
    for operation in program.operations:
        what = facts(operation)
        view = what.view >= 0 and what.view < len(operation.inputs) and bool(operation.inputs[what.view])
        passed = dict(operation.attribute("shares", ()))
        if view and not any(
            name for index, name in enumerate(operation.outputs) if name and index and index not in passed
        ):
            positions.append(None)
            continue
        positions.append(count)
        count += 1
    return positions


def _ranks(program: Program, positions: Sequence[int | None], schedule: Sequence[int]) -> list[int]:
    """Operation indices in the new order: views come as early as what they read allows."""
    place = {graph_index: when for when, graph_index in enumerate(schedule)}
    key: list[tuple[int, int]] = []
    for index, operation in enumerate(program.operations):
        at = positions[index]
        if at is not None:
            key.append((place[at], index))
            continue
        sources = [program.producer[name] for name in operation.reads if name in program.producer]
        key.append((max((key[source][0] for source in sources), default=-1), index))
    return sorted(range(len(key)), key=lambda index: key[index])
