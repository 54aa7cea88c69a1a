"""Which events repeat from step to step: the stretch of a trace that is one iteration over and over.

Two events are alike if they ask for the same (allocate so many bytes on that stream; free the block that was allocated so
many allocations ago). A trace has *period* p over a stretch if every event there is like the one p events later::

    warm-up | a b c d e | a b c d e | a b c d e | tear-down        period 5, 3 repeats

Candidates for p are the distances between equal windows of events that come most often; of each, the longest stretch is
found by comparing the trace with itself shifted. The longest stretch of whole iterations wins, the shortest period
among equals. The border between iterations is put where least is alive, so that few blocks cross it.
Cost: O(events log events) plus O(events) a candidate, vectorised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memfit.allocators.policy import Ints, live_bytes
from memfit.ir.requests import Action, Requests

WINDOW = 32
CANDIDATES = 16


@dataclass(frozen=True, slots=True)
class Iterations:
    """Events [start + k * period, start + (k + 1) * period) for k below ``repeats`` ask for the same."""

    start: int
    period: int
    repeats: int


def find_iterations(requests: Requests) -> Iterations | None:
    """The repeating stretch of a trace; None where nothing repeats at least twice in a row."""
    alike = _alike(requests)
    found: tuple[int, int, int, int] | None = None
    for period in _periods(alike):
        start, length = _longest_run(alike[:-period] == alike[period:])
        repeats = (length + period) // period
        if repeats >= 2 and (found is None or (repeats * period, -period) > (found[0], found[1])):
            found = repeats * period, -period, start, start + length + period
    if found is None:
        return None
    period, start, end = -found[1], found[2], found[3]
    spare = end - start - 2 * period + 1
    before = np.concatenate(([0], live_bytes(requests)[:-1]))
    start += int(np.argmin(before[start : start + min(period, spare)]))
    return Iterations(start, period, (end - start) // period)


def blocks_within(requests: Requests, iterations: Iterations) -> Ints:
    """For each block: which of its iteration's allocations it is, if it lives and dies within one iteration; else -1."""
    born = np.flatnonzero(requests.action == Action.ALLOCATE)
    died = np.full(len(born), -1, np.int64)
    frees = np.flatnonzero(requests.action == Action.FREE)
    died[requests.block[frees]] = frees
    begin, stop = iterations.start, iterations.start + iterations.repeats * iterations.period
    inside = (born >= begin) & (died >= 0) & (died < stop)
    inside &= (born - begin) // iterations.period == (died - begin) // iterations.period
    first = int(np.searchsorted(born, begin))
    each = int(np.searchsorted(born, begin + iterations.period)) - first
    number = (np.arange(len(born)) - first) % max(each, 1)
    return np.where(inside, number, -1)


def _alike(requests: Requests) -> Ints:
    """A number for each event; equal where two events ask for the same."""
    action = requests.action
    allocates = action == Action.ALLOCATE
    count = np.cumsum(allocates)
    about = np.where(allocates, requests.nbytes, count - requests.block)
    about = np.where(action == Action.EMPTY_CACHE, 0, about)
    return (about << 12) ^ (requests.stream.astype(np.int64) << 2) ^ action


def _periods(alike: Ints) -> list[int]:
    """Distances between equal windows, those that come most often or cover most."""
    window = min(WINDOW, len(alike) // 4)
    if window < 1:
        return []
    hashed, width = alike.astype(np.uint64), 1
    while 2 * width <= window:
        factor = np.uint64(pow(0x9E3779B97F4A7C15, width, 1 << 64))
        hashed = hashed[:-width] * factor + hashed[width:]
        width *= 2
    order = np.argsort(hashed, kind="stable")
    same = hashed[order[1:]] == hashed[order[:-1]]
    distance, often = np.unique((order[1:] - order[:-1])[same], return_counts=True)
    covered = distance * often
    best = set(distance[np.argsort(-often, kind="stable")[:CANDIDATES]].tolist())
    best |= set(distance[np.argsort(-covered, kind="stable")[:CANDIDATES]].tolist())
    return sorted(int(p) for p in best if p < len(alike))


def _longest_run(values: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> tuple[int, int]:
    """Start and length of the longest run of True; (0, 0) without one."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], values, [False])).astype(np.int8)))
    if not len(edges):
        return 0, 0
    lengths = edges[1::2] - edges[::2]
    longest = int(np.argmax(lengths))
    return int(edges[2 * longest]), int(lengths[longest])
