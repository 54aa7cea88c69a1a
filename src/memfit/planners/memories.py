"""Which memories there are and how large: what a user says beside the buffers.

``sram:512KiB,dram:1GiB`` names memories in order of preference; a name without a size is unbounded.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from memfit.errors import ProblemError
from memfit.planners.problem import ANY_MEMORY, Ints, Memory, Problem
from memfit.units import parse_bytes


def parse_memories(text: str) -> tuple[Memory, ...]:
    """Memories of a text such as ``sram:512KiB,dram``.

    Raises:
        ProblemError: a name is missing or comes twice; SizeError: a size is none.

    >>> parse_memories("sram:1KiB, dram")
    (Memory(name='sram', capacity=1024), Memory(name='dram', capacity=None))
    """
    found = []
    for part in text.split(","):
        name, colon, size = (piece.strip() for piece in part.partition(":"))
        if not name:
            raise ProblemError(
                f"memories {text!r}", "one has no name", "write name:size,name:size, the preferred first"
            )
        found.append(Memory(name, parse_bytes(size) if colon else None))
    names = [memory.name for memory in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ProblemError(f"memories {text!r}", f"{twice!r} comes twice", "give each memory a name of its own")
    return tuple(found)


def with_memories(problem: Problem, memories: tuple[Memory, ...]) -> Problem:
    """``problem`` over ``memories``; buffers that named one lie in the one of that name.

    Raises:
        ProblemError: a buffer names a memory that is not among them.
    """
    place = {memory.name: index for index, memory in enumerate(memories)}
    used = set(problem.memory.tolist()) - {ANY_MEMORY}
    for index in used:
        name = problem.memories[index].name
        if name not in place:
            row = int(np.argmax(problem.memory == index))
            raise ProblemError(
                f"buffer {problem.ids[row]!r}", f"it must lie in memory {name!r}, which is not among {', '.join(place)}",
                "name it with --memories too",
            )  # fmt: skip
    chosen: Ints = np.full(len(problem), ANY_MEMORY, dtype=np.int64)
    for index in used:
        chosen[problem.memory == index] = place[problem.memories[index].name]
    return replace(problem, memory=chosen, memories=memories)


def with_capacity(problem: Problem, capacity: int) -> Problem:
    """``problem`` with ``capacity`` bytes in its only memory.

    Raises:
        ProblemError: it has several memories.
    """
    if len(problem.memories) > 1:
        names = ",".join(f"{memory.name}:SIZE" for memory in problem.memories)
        raise ProblemError("these buffers", "one capacity for several memories", f"write --memories {names}")
    return replace(problem, memories=(replace(problem.memories[0], capacity=capacity),))
