"""The resident prediction on traces made by hand, without any framework."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from memfit.allocators import glibc_replay
from memfit.allocators.resident import heap_peaks, outside_bytes, predict_resident
from memfit.ir.trace import Category, Trace, TraceOp, TraceStorage
from memfit.machine import process

MIB = 1 << 20


def trace_of(events: list[tuple[int, int]], phase: str = "forward", name: str = "aten.mm.default") -> Trace:
    """One op an event; events are (storage, delta)."""
    count = 1 + max((storage for storage, _ in events), default=-1)
    size = {storage: delta for storage, delta in events if delta > 0}
    return Trace(
        "projected",
        tuple(TraceOp(name, 0, phase) for _ in events),
        tuple(TraceStorage(size.get(s, 0), Category.ACTIVATIONS, 0) for s in range(count)),
        np.array([s for s, _ in events], dtype=np.int64),
        np.array([d for _, d in events], dtype=np.int64),
        np.arange(len(events), dtype=np.int64),
    )


def random_events(seed: int, count: int = 300) -> list[tuple[int, int]]:
    rng = np.random.default_rng(seed)
    events: list[tuple[int, int]] = []
    alive: dict[int, int] = {}
    for number in range(count):
        if alive and rng.random() < 0.45:
            storage = int(rng.choice(list(alive)))
            events.append((storage, -alive.pop(storage)))
        else:
            alive[number] = int(2 ** rng.uniform(6, 21))
            events.append((number, alive[number]))
    return events


def peak_live(events: list[tuple[int, int]]) -> int:
    return int(np.cumsum([delta for _, delta in events]).max())


@pytest.mark.skipif(heap_peaks(trace_of([(0, MIB)])) is None, reason="needs glibc")
class TestReplay:
    @pytest.mark.parametrize("seed", range(4))
    def test_never_below_live_and_not_far_above(self, seed: int) -> None:
        events = random_events(seed)
        peaks = heap_peaks(trace_of(events))
        assert peaks is not None
        assert peaks == sorted(peaks)
        assert peaks[0] >= 0.98 * peak_live(events)
        assert peaks[-1] <= 3 * peak_live(events) + 4 * MIB

    def test_same_trace_same_answer(self) -> None:
        trace = trace_of(random_events(9))
        assert heap_peaks(trace) == heap_peaks(trace)

    def test_large_blocks_are_given_back(self) -> None:
        peaks = heap_peaks(trace_of([(0, 64 * MIB), (0, -64 * MIB), (1, 64 * MIB), (1, -64 * MIB)]))
        assert peaks is not None
        assert 64 * MIB <= peaks[0] <= peaks[-1] <= 66 * MIB

    def test_retained_memory_counts(self) -> None:
        """Small blocks that live on between freed ones keep their neighbours' pages: more than the live peak."""
        events: list[tuple[int, int]] = []
        for number in range(0, 400, 2):
            events += [(number, 100_000), (number + 1, 6000)]
        events += [(number, -100_000) for number in range(0, 400, 2)]
        events += [(400 + number, 120_000) for number in range(150)]
        peaks = heap_peaks(trace_of(events))
        assert peaks is not None
        assert peaks[0] >= 1.5 * peak_live(events)

    def test_replay_counts_every_byte(self) -> None:
        """In an interpreter of its own: a heap with room to spare would take the blocks without growing."""
        code = (
            "from memfit.allocators.glibc_replay import NONE, Requests, replay; M = 1 << 20;"
            "print(*replay(Requests([0, 1, 0], [40 * M, 50 * M, -40 * M], [0, 1, 2], [1, 1, 1], [0] * 3, [0] * 3), NONE))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peak, end = (int(word) for word in done.stdout.split())
        assert 90 * MIB <= peak <= 91 * MIB
        assert 50 * MIB <= end <= 51 * MIB

    def test_refused_size_falls_back(self) -> None:
        trace = trace_of([(0, 1 << 60)])
        assert heap_peaks(trace) is None
        low, expected, high = predict_resident(trace, base=0)
        assert 1 << 60 <= low < expected < high


def test_interval_is_ordered_and_grows_with_base() -> None:
    trace = trace_of(random_events(3))
    low, expected, high = predict_resident(trace, base=100 * MIB)
    assert 100 * MIB < low <= expected <= high
    shifted = predict_resident(trace, base=150 * MIB)
    assert [b - a for a, b in zip((low, expected, high), shifted, strict=True)] == [50 * MIB] * 3


def test_empty_trace_is_the_base() -> None:
    low, expected, high = predict_resident(trace_of([]), base=7 * MIB)
    assert low == 7 * MIB
    assert 7 * MIB <= expected <= high <= 60 * MIB


def test_training_and_convolutions_touch_more_code() -> None:
    plain = outside_bytes(trace_of([(0, 64)]))
    assert outside_bytes(trace_of([(0, 64)], phase="backward")) > plain
    assert outside_bytes(trace_of([(0, 64)], name="aten.convolution.default")) > plain


def test_no_c_library_model_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda *args: ("musl", "1"))
    trace = trace_of([(0, 10 * MIB)])
    assert heap_peaks(trace) is None
    low, expected, high = predict_resident(trace, base=0)
    assert 10 * MIB <= low < expected < high


def test_process_sizes() -> None:
    now, peak = process.process_bytes(), process.process_bytes("VmHWM")
    if now is not None and peak is not None:
        assert MIB < now <= peak
    assert process.process_bytes("NoSuchField") is None
    assert process.base_bytes(optimizer=True) >= process.base_bytes(optimizer=False) > 100 * MIB


def test_every_variant_is_another() -> None:
    assert len(set(glibc_replay.VARIANTS)) == len(glibc_replay.VARIANTS)
