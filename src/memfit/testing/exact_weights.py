"""Brute force beside ``runtime.weight_schedule``: what a schedule must hold to, and the fewest reads that any could have.

Shares no code with it. Cost: exponential in the touches; for up to about sixteen.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from memfit.runtime.weight_schedule import WeightSchedule


def why_not_kept(accesses: Sequence[Sequence[int]], schedule: WeightSchedule) -> str:
    """Why ``schedule`` cannot be carried out with its frames, "" where it can. Plays two passes, chunk by chunk."""
    touches = [(t, chunk) for t, access in enumerate(accesses) for chunk in access]
    if [chunk for _, chunk in touches] != schedule.chunk.tolist():
        return "its touches are not the accesses'"
    here: set[int] = set()
    reads = 0
    for lap in range(3):
        reads = 0
        for t in range(len(accesses)):
            for place in range(int(schedule.first[t]), int(schedule.first[t + 1])):
                chunk = touches[place][1]
                if chunk not in here:
                    reads += 1
                    if lap and not schedule.read[place]:
                        return f"touch {place} is said to need no read, but chunk {chunk} is not there"
                    here.add(chunk)
            if len(here) > schedule.capacity:
                return f"{len(here)} chunks at access {t}, {schedule.capacity} frames"
            for place in range(int(schedule.first[t]), int(schedule.first[t + 1])):
                if not schedule.keep[place]:
                    here.discard(touches[place][1])
        if lap and reads != schedule.reads:
            return f"{reads} reads in a pass, said to be {schedule.reads}"
    if int(schedule.occupied.max(initial=0)) > schedule.capacity:
        return "more frames are set aside than there are"
    return ""


def fewest_reads_exactly(accesses: Sequence[Sequence[int]], capacity: int) -> int:
    """The fewest reads of a pass with ``capacity`` frames and nothing read ahead, by trying every set of gaps kept."""
    touches = [(t, chunk) for t, access in enumerate(accesses) for chunk in access]
    passed: list[set[int]] = []
    for t, chunk in touches:
        gap, at = set(), (t + 1) % len(accesses)
        while chunk not in accesses[at]:
            gap.add(at)
            at = (at + 1) % len(accesses)
        passed.append(gap)
    free = [number for number, gap in enumerate(passed) if not gap]
    costly = [number for number, gap in enumerate(passed) if gap]
    room = [capacity - len(set(access)) for access in accesses]
    for kept in range(len(costly), -1, -1):
        for chosen in combinations(costly, kept):
            taken = [0] * len(accesses)
            for number in chosen:
                for t in passed[number]:
                    taken[t] += 1
            if all(used <= left for used, left in zip(taken, room, strict=True)):
                return len(touches) - kept - len(free)
    return len(touches) - len(free)
