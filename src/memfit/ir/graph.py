"""Graph: the whole step as ops over storages, without weights; what the planner of `fit` reasons about.

Views are folded away: an op that reads a view of storage ``s`` reads ``s``, and a view costs nothing, so every op here
creates at least one new storage or changes one in place. A **schedule** is a sequence of op indices, with repetitions:

    schedule   0  1  2  3  1  4          op 1 runs twice: what it made was dropped and is computed again

Rules, the same in the native simulator, its twin and the executor:
  * every storage that some op writes must be computed before it is read; a read means the newest instance;
  * an instance dies right after its last read before it is computed again, or before the end;
  * outputs live to the end of the schedule; constants live always and count in ``base_bytes``;
  * while an op runs, its inputs, its outputs and its workspace are alive;
  * where ``reuse`` names an input that dies at this very run, the op's first output takes over those bytes.

An op is run again only if ``repeatable``. Every op that is not stays exactly once, and ``order`` edges hold between
runs: for (a, b) no run of ``a`` may come after the first run of ``b`` (a reads what b changes in place), and ``chain``
lists ops whose first runs must keep their order (random number generators).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes that one or more tensors view. ``constant``: exists before the step (parameter, buffer, input, state)."""

    nbytes: int
    constant: bool = False
    output: bool = False
    label: str = ""


@dataclass(frozen=True, slots=True)
class Op:
    """One op. ``reads``/``writes``: storage indices read / created. ``changes``: constants changed in place.

    ``workspace``: bytes alive only inside the op. ``seconds``: its cost. ``reuse``: index of an input storage whose
    bytes the first output may take over (an in-place form exists, bit-equal), or -1. ``phase``: forward, backward,
    optimizer. ``repeatable``: may run again with the same result (random ops may: their state is replayed).
    """

    name: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    changes: tuple[int, ...] = ()
    workspace: int = 0
    seconds: float = 0.0
    reuse: int = -1
    phase: str = "forward"
    repeatable: bool = True
    label: str = ""


@dataclass(frozen=True)
class Graph:
    """See the module text. ``ops`` stand in the program's own order, which is a valid schedule."""

    ops: tuple[Op, ...]
    storages: tuple[Storage, ...]
    order: tuple[tuple[int, int], ...] = ()
    chain: tuple[int, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def base_bytes(self) -> int:
        """Bytes of the constants: parameters, buffers, inputs, optimizer state."""
        return sum(storage.nbytes for storage in self.storages if storage.constant)

    @cached_property
    def producer(self) -> tuple[int, ...]:
        """For each storage the op that creates it, -1 for constants."""
        made = [-1] * len(self.storages)
        for index, op in enumerate(self.ops):
            for storage in op.writes:
                made[storage] = index
        return tuple(made)

    def to_json(self) -> dict[str, Any]:
        """Plain data; ``from_json`` gives an equal Graph back."""
        return {
            "ops": [asdict(op) for op in self.ops],
            "storages": [asdict(storage) for storage in self.storages],
            "order": [list(edge) for edge in self.order],
            "chain": list(self.chain),
            "meta": self.meta,
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> Graph:
        """The Graph that ``to_json`` wrote."""
        ops = tuple(
            Op(
                **{
                    **row,
                    "reads": tuple(row["reads"]),
                    "writes": tuple(row["writes"]),
                    "changes": tuple(row["changes"]),
                }
            )
            for row in data["ops"]
        )
        return Graph(
            ops, tuple(Storage(**row) for row in data["storages"]), tuple((a, b) for a, b in data["order"]),
            tuple(data["chain"]), data["meta"],
        )  # fmt: skip

    def dumps(self) -> str:
        """JSON text."""
        return json.dumps(self.to_json())


def why_invalid(graph: Graph, schedule: Sequence[int]) -> str:
    """Why ``schedule`` breaks a rule of the module text, or '' when it keeps all. Brute force, shares no planner code."""
    computed = [storage.constant for storage in graph.storages]
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for position, index in enumerate(schedule):
        op = graph.ops[index]
        for storage in op.reads:
            if not computed[storage]:
                return f"op {index} ({op.name}) at position {position} reads storage {storage} before it is computed"
        for storage in op.writes:
            computed[storage] = True
        if index in first and not op.repeatable:
            return f"op {index} ({op.name}) at position {position} runs again and is not repeatable"
        first.setdefault(index, position)
        last[index] = position
    for index, op in enumerate(graph.ops):
        if index not in first:
            return f"op {index} ({op.name}) never runs"
    for before, after in graph.order:
        if last[before] > first[after]:
            return f"op {before} runs at position {last[before]}, after op {after} that changes what it reads"
    positions = [first[index] for index in graph.chain]
    if positions != sorted(positions):
        return "the first runs of the random ops changed their order"
    return ""
