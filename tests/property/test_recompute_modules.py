"""The choice of modules against brute force, and the curve against a plain recount, on random small programs."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.passes.recompute_modules import Handle, ModuleCall, ModuleProfile, choose_modules


def chain(sizes: list[tuple[int, int, float]], nested: bool) -> ModuleProfile:
    """A chain of blocks, each saving its input and ``inner`` further bytes (half in a child module when nested)."""
    handles: list[Handle] = []
    calls: list[ModuleCall] = []
    storage_sizes: list[int] = []
    modules: list[str] = []
    seconds: list[float] = []
    blocks = len(sizes)
    events = 4 * blocks + 2
    for i, (boundary, inner, cost) in enumerate(sizes):
        x, y, z = len(storage_sizes), len(storage_sizes) + 1, len(storage_sizes) + 2
        storage_sizes += [boundary, inner, inner]
        start, back = 2 * i, events - 2 * i - 2
        calls.append(ModuleCall(len(modules), -1, start, start + 2, (x,)))
        modules.append(f"block.{i}")
        seconds.append(cost)
        block = len(calls) - 1
        child = block
        if nested:
            calls.append(ModuleCall(len(modules), block, start + 1, start + 2, (y,)))
            modules.append(f"block.{i}.inner")
            seconds.append(cost / 3)
            child = block + 1
        handles += [
            Handle(x, block, start, back + 2), Handle(y, block, start, back + 2), Handle(z, child, start + 1, back + 1)
        ]  # fmt: skip
    lives = [0] * events
    for handle in handles:
        for event in range(handle.packed, handle.released):
            lives[event] += storage_sizes[handle.storage]
    return ModuleProfile(
        tuple(lives), tuple(lives), tuple(storage_sizes), tuple(handles), tuple(calls), tuple(modules),
        tuple("inner" if "inner" in m else "block" for m in modules), tuple(seconds),
    )  # fmt: skip


def recount(profile: ModuleProfile, chosen: frozenset[int]) -> list[int]:
    """Which storages are alive at each event, asked one by one."""

    def inner(call: int) -> int:
        while call >= 0 and profile.calls[call].module not in chosen:
            call = profile.calls[call].parent
        return call

    totals = []
    for event in range(len(profile.lives)):
        plain = {h.storage for h in profile.handles if h.packed <= event < h.released}
        alive = set()
        for h in profile.handles:
            c = inner(h.call)
            if (h.packed if c < 0 else profile.windows[c][0]) <= event < h.released:
                alive.add(h.storage)
        for number, call in enumerate(profile.calls):
            if call.module in chosen:
                c = inner(call.parent)
                if (call.start if c < 0 else profile.windows[c][0]) <= event < profile.windows[number][1]:
                    alive |= set(call.inputs)
        totals.append(
            profile.peaks[event] + sum(profile.sizes[s] for s in alive) - sum(profile.sizes[s] for s in plain)
        )
    return totals


BLOCKS = st.lists(
    st.tuples(st.integers(1, 20), st.integers(0, 50), st.floats(0.1, 3.0, allow_nan=False)), min_size=2, max_size=5
)


@settings(max_examples=60, deadline=None)
@given(BLOCKS, st.booleans(), st.integers(0, 2**31))
def test_curve_is_a_recount(sizes: list[tuple[int, int, float]], nested: bool, seed: int) -> None:
    profile = chain(sizes, nested)
    picked = random.Random(seed)
    chosen = frozenset(m for m in range(len(profile.modules)) if picked.random() < 0.5)
    assert profile.curve(chosen).tolist() == recount(profile, chosen)
    assert (profile.curve(frozenset()) == np.asarray(profile.peaks)).all()


@settings(max_examples=40, deadline=None)
@given(BLOCKS, st.booleans(), st.floats(0.2, 1.0))
def test_choice_against_brute_force(sizes: list[tuple[int, int, float]], nested: bool, fraction: float) -> None:
    profile = chain(sizes, nested)
    target = int(max(profile.peaks) * fraction)
    best = None
    count = len(profile.modules)
    for bits in itertools.product([0, 1], repeat=min(count, 10)):
        chosen = frozenset(i for i, bit in enumerate(bits) if bit)
        if profile.curve(chosen).max() <= target and (best is None or profile.seconds_of(chosen) < best):
            best = profile.seconds_of(chosen)
    found = choose_modules(profile, target)
    assert found.kept == (found.peak <= target)
    assert found.peak == max(recount(profile, found.modules))
    if best is not None:
        assert found.kept
        assert found.seconds <= 1.5 * best + 1e-6


@pytest.mark.parametrize("blocks", [4, 12])
def test_uniform_chain_takes_as_few_as_needed(blocks: int) -> None:
    profile = chain([(1, 10, 1.0)] * blocks, nested=False)
    full = max(profile.peaks)
    assert choose_modules(profile, full).modules == frozenset()
    half = choose_modules(profile, full - 20)
    assert half.kept
    assert len(half.modules) <= 2
    assert not choose_modules(profile, 0).kept


def test_refused_modules_stay() -> None:
    profile = chain([(1, 10, 1.0)] * 4, nested=False)
    assert 0 not in choose_modules(profile, 0, frozenset({0})).modules
