"""The same program under a dynamic allocator, a static plan, and both together; which to take, in words.

    dynamic   every request is served as it comes; the future is unknown          torch's, and the one that runs on least
    static    all lifetimes are known: an offset for every block before the run   planners.portfolio on the whole trace
    mixed     what repeats in every iteration is planned once, and the rest       iterations found in the trace itself
              (first step, state that stays, blocks that cross steps) is dynamic

The mix follows the plan of one iteration as far as the program does (``allocators.guided``); its arena stands beside what
the rest takes, from the start.

Peaks are bytes reserved without a limit. Times are CPU seconds an event, measured by replaying the very same events: a
dynamic policy searches, splits and joins, a plan looks an offset up. Offsets are rounded as the policies round, 512 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memfit.allocators.fits import ALIGNMENT
from memfit.allocators.guided import DYNAMIC, follow_plan
from memfit.allocators.iterations import Iterations, blocks_within, find_iterations
from memfit.allocators.planned import PlannedPolicy
from memfit.allocators.policy import Ints, Policy
from memfit.allocators.replay import Result
from memfit.ir.requests import Action, Requests
from memfit.planners.portfolio import plan_problem
from memfit.planners.problem import Problem, simple_problem
from memfit.report.replay_summary import Contender, StaticAgainstDynamic
from memfit.units import format_bytes

Progress = Callable[[str, int | None, int | None], None]
Marks = npt.NDArray[np.bool_]
TIME_LIMIT = 10.0
RUNS = 3
NEAR = 0.01


@dataclass(frozen=True)
class _Plan:
    """Offsets of blocks, bytes of the arena, a proved bound."""

    offset: Ints
    nbytes: int
    bound: int


def static_against_dynamic(requests: Requests, results: Sequence[Result], say: Progress) -> StaticAgainstDynamic:
    """Compare on ``requests``; ``results``: the policies' replays, the best first. Cost: a plan of all blocks, and of one
    iteration, at most TIME_LIMIT CPU seconds each as far as the planner keeps to it, and a few replays.
    """
    live = results[0].unlimited.peak_live
    torch = next((result for result in results if result.key == "torch"), None)
    others = [result for result in results if result is not torch] or list(results)
    best = min(others, key=lambda result: (result.unlimited.peak_reserved, result.unlimited.driver_calls))
    say("planning the whole trace", None, None)
    whole = _plan(problem_of_requests(requests))
    planned = PlannedPolicy(whole.offset, whole.nbytes)
    contenders = [_dynamic(result, requests, live) for result in ([torch] if torch else []) + [best]]
    static = Contender(
        "static plan of the whole trace", whole.nbytes, _lost(live, whole.nbytes), _time(planned, requests), 1.0,
        whole.nbytes,
    )  # fmt: skip
    contenders.append(static)
    say("looking for iterations", None, None)
    iterations = find_iterations(requests)
    mixed = None if iterations is None else _mixed(requests, iterations, best, live)
    if mixed is not None:
        contenders.append(mixed)
    words = _recommend(contenders[0] if torch else None, contenders[1 if torch else 0], static, mixed, iterations)
    expandable = next((r.unlimited.peak_reserved for r in results if r.key == "torch-expandable"), None)
    least = min(contender.peak for contender in contenders)
    if (
        torch
        and best.key != "torch-expandable"
        and expandable is not None
        and torch.unlimited.peak_reserved > expandable
    ):
        above = f"{expandable / least - 1.0:.1%} above the least of all"
        words += f" In torch itself, expandable_segments:True reserves {format_bytes(expandable)}, {above}."
    return StaticAgainstDynamic(
        tuple(contenders), whole.bound, whole.nbytes == whole.bound, iterations.period if iterations else 0,
        iterations.repeats if iterations else 0, words,
    )  # fmt: skip


def problem_of_requests(requests: Requests) -> Problem:
    """The blocks as buffers: alive from ALLOCATE to FREE, or to the end; sizes rounded up to 512 bytes."""
    born = np.flatnonzero(requests.action == Action.ALLOCATE)
    died = np.full(len(born), len(requests), np.int64)
    frees = requests.action == Action.FREE
    died[requests.block[frees]] = np.flatnonzero(frees)
    size = -(-requests.nbytes[born] // ALIGNMENT) * ALIGNMENT
    return simple_problem(born, died, size)


def without(requests: Requests, left_out: Marks) -> Requests:
    """The requests without the blocks marked in ``left_out``, the others numbered anew."""
    number = np.cumsum(~left_out) - 1
    kept = np.flatnonzero(_kept(requests, left_out))
    block = np.where(requests.action == Action.EMPTY_CACHE, 0, number[requests.block])[kept]
    label = tuple(np.array(requests.label, dtype=object)[~left_out]) if requests.label else ()
    return Requests(
        requests.action[kept], block, requests.nbytes[kept], requests.stream[kept], requests.pool[kept],
        requests.address[kept], label, requests.meta,
    )  # fmt: skip


def _plan(problem: Problem) -> _Plan:
    result = plan_problem(problem, time_limit=TIME_LIMIT)
    return _Plan(np.asarray(result.best.offset, np.int64), result.best.peak, result.bound)


def _mixed(requests: Requests, iterations: Iterations, best: Result, live: int) -> Contender | None:
    """One iteration planned, followed as far as the program does, the rest by the best dynamic policy; None without a block
    that lives and dies within its iteration.
    """
    number = blocks_within(requests, iterations)
    buffers = problem_of_requests(requests)
    once = np.flatnonzero((buffers.lower >= iterations.start) & (buffers.lower < iterations.start + iterations.period))
    inside = once[number[once] >= 0]
    if not len(inside):
        return None
    plan = _plan(simple_problem(buffers.lower[inside], buffers.upper[inside], buffers.size[inside]))
    offset = np.full(requests.blocks, DYNAMIC, np.int64)
    offset[inside] = plan.offset
    sizes = requests.nbytes[requests.action == Action.ALLOCATE]
    place = follow_plan(requests, sizes[once], offset[once], iterations.period)
    planned = place != DYNAMIC
    fixed, rest = without(requests, ~planned), without(requests, planned)
    arena = PlannedPolicy(place[planned], plan.nbytes)
    peak = plan.nbytes + best.policy.replay(rest).peak_reserved
    seconds = _time(arena, fixed) * len(fixed) + _time(best.policy, rest) * len(rest)
    return Contender(
        f"mixed: one iteration of {iterations.repeats} planned, {best.key} for the rest", peak, _lost(live, peak),
        seconds / len(requests), float(planned.mean()), plan.nbytes,
    )  # fmt: skip


def _kept(requests: Requests, left_out: Marks) -> Marks:
    """The events about other blocks than those marked."""
    kept: Marks = (requests.action == Action.EMPTY_CACHE) | ~left_out[requests.block]
    return kept


def _dynamic(result: Result, requests: Requests, live: int) -> Contender:
    peak = result.unlimited.peak_reserved
    return Contender(f"dynamic: {result.key}", peak, _lost(live, peak), _time(result.policy, requests))


def _time(policy: Policy, requests: Requests) -> float:
    """The least CPU seconds an event of RUNS replays."""
    return min(policy.replay(requests).seconds for _ in range(RUNS)) / max(len(requests), 1)


def _lost(live: int, peak: int) -> float:
    return 1.0 - live / peak if peak else 0.0


def _recommend(
    torch: Contender | None, best: Contender, static: Contender, mixed: Contender | None, iterations: Iterations | None
) -> str:  # fmt: skip
    """What to take and why: memory first, then how much of the future has to be known for it."""
    usual = torch or best
    known = [contender for contender in (static, mixed) if contender is not None]
    least = min([best, usual, *known], key=lambda contender: contender.peak)
    limit = least.peak * (1 + NEAR)
    if usual.peak <= limit:
        return (
            f"Keep {_short(usual)}: it reserves {format_bytes(usual.peak)}, at most {NEAR:.0%} above the least of all; a "
            f"plan would save time only ({_faster(usual, static)})."
        )
    if best.peak <= limit:
        return (
            f"Take {_short(best)}: dynamic, so nothing has to repeat, and {format_bytes(best.peak)} instead of "
            f"{format_bytes(usual.peak)}; a plan is no smaller by more than {NEAR:.0%} ({_faster(best, static)})."
        )
    if mixed is not None and mixed.peak <= limit:
        return (
            f"Take the mix: {format_bytes(mixed.peak)} instead of {format_bytes(usual.peak)}; {mixed.static_share:.0%} of the "
            f"allocations repeat and are looked up, the rest may vary ({_faster(usual, mixed)})."
        )
    if iterations is None:
        return (
            f"The plan needs {format_bytes(static.peak)} instead of {format_bytes(usual.peak)}, but no iterations repeat in "
            f"this trace: it holds only if the very same events come again; else take {_short(best)}."
        )
    return (
        f"Take the static plan where shapes are fixed: {format_bytes(static.peak)} instead of {format_bytes(usual.peak)} "
        f"({_faster(usual, static)}); where they vary, {_short(best)} with {format_bytes(best.peak)}."
    )


def _short(contender: Contender) -> str:
    return contender.name.removeprefix("dynamic: ")


def _faster(slow: Contender, fast: Contender) -> str:
    return f"{slow.seconds_per_event * 1e9:.0f} ns an event against {fast.seconds_per_event * 1e9:.0f} ns"
