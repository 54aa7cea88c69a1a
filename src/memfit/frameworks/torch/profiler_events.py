"""Recording without a compiler: torch's own profiler reports the same blocks, at about 1.3 times the step's time.

``ProfilerHook`` answers to the names of ``allocator_hook``. What only a running hook can tell (live bytes now, the
block at an address) is told when the recording ends, from the order of its marks: ``block_of`` gives out tickets, and
``resolved`` exchanges them. Modules and lines are not known here; the overloads of ops neither.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from memfit.ir.recording import KnownStorage, Recording, Scope

_MARK = "memfit mark: "
_TICKET = "ticket "
_ENGINE = "autograd::engine::"


class ProfilerHook:
    """Records through ``torch.profiler``; one recording in each instance."""

    deferred = True

    def __init__(self) -> None:
        self._profile: Any = None
        self._addresses: list[int] = []
        self._blocks: dict[int, int] = {}
        self._began = 0.0

    def install(self) -> None:
        """Nothing is put in place."""

    uninstall = start_samples = stop_samples = sample_now = reset_peak = install

    def is_recording(self) -> bool:
        """Whether a recording runs."""
        return self._profile is not None

    def live_bytes(self) -> int:
        """Not known yet."""
        return 0

    peak_bytes = recorder_bytes = live_bytes

    def step_calls(self) -> tuple[Any, Any, Any]:
        """As ``allocator_hook.step_calls``; only the seconds are known yet."""
        return self._begin_step, self._end_step, self._mark_phase

    def _begin_step(self) -> None:
        self._began = time.process_time()

    def _end_step(self) -> tuple[int, int, int, float]:
        return 0, 0, 0, time.process_time() - self._began

    def _mark_phase(self, step: int, phase: str) -> None:
        self.mark(f"{step} {phase}")

    def watch_operations(self, on: bool) -> None:
        """They always are."""

    def resident(self) -> dict[str, int]:
        """Resident and shared bytes of this process; malloc's account is not known."""
        page = os.sysconf("SC_PAGESIZE")
        try:
            with open("/proc/self/statm") as file:
                _, resident, shared = (int(word) * page for word in file.read().split()[:3])
        except OSError:
            resident = shared = 0
        return {"live": 0, "resident": resident, "shared": shared, "arena": 0, "mapped": 0, "used": 0, "free": 0}

    fullest = resident

    def block_of(self, address: int) -> int:
        """A ticket for the block that lives at ``address`` now."""
        self._addresses.append(address)
        self.mark(f"{_TICKET}{len(self._addresses) - 1}")
        return len(self._addresses) - 1

    def mark(self, text: str) -> None:
        """Put a mark into the recording."""
        if self._profile is not None:
            with torch.profiler.record_function(_MARK + text):
                pass

    def start_recording(self, *, stacks: bool = False, operations: bool = True) -> None:
        """Keep every event from now on; blocks that live already are not known."""
        self._profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
        self._profile.__enter__()

    def stop_recording(self) -> Recording:
        """End the recording and hand it over."""
        profile, self._profile = self._profile, None
        profile.__exit__(None, None, None)
        reader = _Reader(self._addresses)
        for root in sorted(
            profile.profiler.kineto_results.experimental_event_tree(), key=lambda node: node.start_time_ns
        ):
            reader.read(root, -1)
        self._blocks = reader.tickets
        return reader.recording()

    def resolved(self, rows: Iterable[KnownStorage]) -> list[KnownStorage]:
        """Rows with their tickets exchanged for blocks; of several for one block the first."""
        first: dict[tuple[int, int], KnownStorage] = {}
        for row in rows:
            block = self._blocks.get(row.block, -1)
            key = (block, -1) if block >= 0 else (-1, self._addresses[row.block])
            first.setdefault(key, replace(row, block=block))
        return list(first.values())


class _Reader:
    """Walks the event tree in time order and fills the columns of a Recording."""

    def __init__(self, addresses: list[int]) -> None:
        self._addresses = addresses
        self._alive: dict[int, tuple[int, int]] = {}
        self.tickets: dict[int, int] = {}
        self._count = 0
        self._events: list[tuple[int, int, int, int]] = []
        self._operations: list[tuple[str, int, int, int, int]] = []
        self._marks: list[tuple[str, int, int, int]] = []

    def read(self, node: Any, parent: int, in_engine: bool = False) -> None:
        """Read a node and all below it. ``in_engine``: the autograd engine runs it, outside of a backward node."""
        kind = node.tag.name
        if kind == "Allocation":
            self._allocation(node, parent)
            return
        row = parent
        if kind == "TorchOp":
            name = node.name
            if name.startswith(_MARK):
                self._mark(name.removeprefix(_MARK), node.start_time_ns)
                return
            if name.startswith(_ENGINE):
                in_engine = True
            else:
                fields = node.extra_fields
                row = len(self._operations)
                scope = (
                    int(Scope.AFTER_NODE) if in_engine and int(fields.scope) == Scope.FUNCTION else int(fields.scope)
                )
                in_engine = False
                self._operations.append((name, parent, scope, int(fields.sequence_number), node.start_time_ns))
        for child in node.children:
            self.read(child, row, in_engine)

    def _allocation(self, node: Any, parent: int) -> None:
        fields = node.extra_fields
        if fields.device.type != "cpu":
            return
        size, address = int(fields.alloc_size), int(fields.ptr)
        if size > 0:
            self._alive[address] = self._count, size
            self._events.append((self._count, size, parent, node.start_time_ns))
            self._count += 1
        elif address in self._alive:
            number, born = self._alive.pop(address)
            self._events.append((number, -born, parent, node.start_time_ns))

    def _mark(self, text: str, when: int) -> None:
        if text.startswith(_TICKET):
            ticket = int(text.removeprefix(_TICKET))
            found = self._alive.get(self._addresses[ticket])
            if found is not None:
                self.tickets[ticket] = found[0]
            return
        self._marks.append((text, len(self._events), len(self._operations), when))

    def recording(self) -> Recording:
        """The columns read so far."""
        events = np.array(self._events, np.int64).reshape(-1, 4)
        operations = np.array([row[1:] for row in self._operations], np.int64).reshape(-1, 4)
        marks = np.array([row[1:] for row in self._marks], np.int64).reshape(-1, 3)
        zeros = np.zeros(len(operations), np.int64)
        return Recording(
            block=events[:, 0].copy(), delta=events[:, 1].copy(), operation=events[:, 2].astype(np.int32),
            nanoseconds=events[:, 3].copy(), stack=np.full(len(events), -1, np.int32),
            name=tuple(row[0] for row in self._operations), parent=operations[:, 0].astype(np.int32),
            scope=operations[:, 1].astype(np.int32), sequence=operations[:, 2].copy(), thread=zeros,
            forward_thread=zeros, module=zeros, operation_stack=np.full(len(operations), -1, np.int32),
            operation_nanoseconds=operations[:, 3].copy(), mark_text=tuple(row[0] for row in self._marks),
            mark_event=marks[:, 0].copy(), mark_operation=marks[:, 1].copy(), mark_nanoseconds=marks[:, 2].copy(),
            source="profiler",
        )  # fmt: skip
