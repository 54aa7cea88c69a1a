"""Accesses as programs make them: cycles over layers, forward and backward, skewed use; random ones for hypothesis.

A cycle of L layers on which C fit: LRU, FIFO and CLOCK hit never, OPT hits (C - 1) / (L - 1) of the accesses after the
first round; forward and backward instead ends where it begins, so that LRU keeps what comes next.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from memfit.paging.accesses import Accesses, accesses_of


def cyclic(layers: int = 96, rounds: int = 10) -> Accesses:
    """Every layer in order, again and again: inference, layer by layer."""
    return accesses_of(np.tile(np.arange(layers), rounds))


def forward_backward(layers: int = 96, rounds: int = 10) -> Accesses:
    """Up through the layers and down again: a training step."""
    up = np.arange(layers)
    return accesses_of(np.tile(np.concatenate([up, up[::-1]]), rounds))


def zipf(count: int, objects: int, exponent: float = 0.9, seed: int = 0) -> Accesses:
    """Independent draws; the k-th most wanted object comes with a chance of 1 / k^exponent: experts, shared prefixes."""
    chances = np.cumsum(np.arange(1, objects + 1, dtype=np.float64) ** -exponent)
    draws = np.random.default_rng(seed).random(count) * chances[-1]
    return accesses_of(np.searchsorted(chances, draws))


def small_accesses(most: int = 120, pages: int = 12) -> st.SearchStrategy[Accesses]:
    """Traces of up to ``most`` accesses to up to ``pages`` pages, with runs and loops among random ones."""
    page = st.integers(0, pages - 1)
    single = page.map(lambda p: [p])
    run = st.tuples(page, st.integers(1, 3)).map(lambda r: [r[0]] * r[1])
    loop = st.tuples(st.integers(1, pages), st.integers(1, 3)).map(lambda r: list(range(r[0])) * r[1])
    parts = st.lists(st.one_of(single, single, run, loop), max_size=most // 2)
    return parts.map(lambda lists: accesses_of(np.array([p for part in lists for p in part][:most], np.int64)))
