"""When the watcher traces: steps of one loop, not before the twelfth, and no longer than that loop turns."""

from __future__ import annotations

import tracemalloc

import pytest

from memfit.api.leak_hunt import Hunt
from memfit.observe.leak_meter import Level


def turned(watcher, key, times, kept, kind="loop", depth=0):
    for _ in range(times):
        watcher.turn(key, f"loop {key}", kind, depth)
        kept.append(bytearray(20_000))


def test_a_loop_that_ends_while_it_is_traced_is_traced_no_longer():
    watcher, kept = Hunt("two loops").watcher, []
    turned(watcher, "built", 13, kept)
    assert watcher.tracing
    turned(watcher, "steps", 60, kept)
    assert not watcher.tracing
    assert not tracemalloc.is_tracing()
    watcher.close()


def test_steps_are_traced_once_the_twelfth_has_begun():
    watcher, kept = Hunt("a loop").watcher, []
    turned(watcher, "steps", 11, kept)
    assert not watcher.tracing
    turned(watcher, "steps", 2, kept)
    assert watcher.tracing
    turned(watcher, "steps", 10, kept)
    assert not watcher.tracing
    watcher.close()


@pytest.mark.parametrize(
    ("more", "share", "looks"), [(0, 0.0, 0), (400, 0.0, 0), (0, 1e6, 1), (400, 1e6, 1), (4096, 0.0, 2)]
)
def test_a_loop_that_holds_no_more_is_looked_at_once_and_only_when_there_is_time(monkeypatch, more, share, looks):
    watcher = Hunt("a loop", closely=False, share=share).watcher
    watcher.own_seconds = 1.0  # what further looks would have to wait for
    for step in range(200):
        monkeypatch.setattr(watcher.meter, "read", lambda at=step: Level(10**6 + more * at, 10**6, 10**7))
        watcher.turn("steps", "steps", "declared")
    assert len(watcher.looks) == looks
    watcher.close()


def test_seconds_that_go_into_looking_are_not_the_program_s():
    watcher = Hunt("a loop").watcher
    before = watcher.clock()
    watcher.lost += 100.0
    assert watcher.clock() < before
    watcher.close()
