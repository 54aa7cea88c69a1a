"""Key/value caches: one append at several lengths, block operations, waste in real pages: ``results/kv-cache.json``.

Peers in the same run: ``DynamicCache`` and ``StaticCache`` of transformers. Times are CPU time of one thread, the least of
several rounds, ours and the peers' in turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import record
import torch
from transformers import DynamicCache, LlamaConfig, StaticCache

import memfit
from memfit.runtime.block_table import BlockTable
from memfit.runtime.kv_cache import KeyValueStore, LayerShape

HEADS, DIM = 8, 64


def appended(make: Callable[[], Any], tokens: int, steps: int) -> tuple[Callable[[], None], int]:
    """A cache with so many tokens, and what appends ``steps`` more to its first layer."""
    cache = make()
    keys = torch.randn(1, HEADS, tokens, DIM)
    one = torch.randn(1, HEADS, 1, DIM)
    cache.update(keys, keys, 0)

    def run() -> None:
        for _ in range(steps):
            cache.update(one, one, 0)

    return run, steps


def append_times() -> dict[str, dict[str, float]]:
    config = LlamaConfig(
        hidden_size=HEADS * DIM, num_hidden_layers=1, num_attention_heads=HEADS, num_key_value_heads=HEADS
    )
    caches: dict[str, tuple[Callable[[], Any], int]] = {
        "memfit": (lambda: memfit.KVCache("256MiB"), 64),
        "DynamicCache": (DynamicCache, 16),
        "StaticCache": (lambda: StaticCache(config=config, max_cache_len=4700), 64),
    }
    out: dict[str, dict[str, float]] = {}
    for tokens in (256, 1024, 4096):
        runs = {name: appended(make, tokens, steps) for name, (make, steps) in caches.items()}
        best = dict.fromkeys(runs, float("inf"))
        for _ in range(7):
            for name, (run, steps) in runs.items():
                start = time.thread_time_ns()
                run()
                best[name] = min(best[name], (time.thread_time_ns() - start) / 1e3 / steps)
        out[str(tokens)] = best
    return out


def block_operations() -> float:
    """Allocations and releases a second, 64 blocks a call as a scheduler would."""
    table = BlockTable(4096, 64)
    lane = table.open_lane()
    blocks = np.arange(lane * 64, lane * 64 + 64, dtype=np.int64)
    best = 0.0
    for _ in range(5):
        start = time.thread_time()
        for _ in range(4000):
            table.allocate(lane, 0, 64)
            table.release(blocks)
        best = max(best, 4000 * 128 / (time.thread_time() - start))
    return best


def waste(rows: int = 400) -> dict[str, float]:
    """Real pages of lognormal requests (mean about 422 tokens, at most 2048) against the bytes written."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(5.65, 0.9, rows).astype(int), 1, 2048)
    shape = LayerShape(HEADS, 256, 256)
    store = KeyValueStore(1 << 40, shape, layers=1, longest=2048)
    store.add_layer(shape)
    data = np.ones((1, 2048, HEADS, 64), np.float32)
    held = []
    for length in lengths.tolist():
        batch = store.rows(1)
        batch.add_layer()
        start = batch.prepare(0, length)
        for appender in batch.appenders:
            appender.append(data.ctypes.data, data.strides[0], 256, HEADS * 256, start, length)
        batch.wrote(0, length)
        held.append(batch)
    written = int(lengths.sum()) * 2 * HEADS * 256
    out = {
        "mean_tokens": float(lengths.mean()),
        "accounted": 1 - written / store.used,
        "measured": 1 - written / store.resident,
        "static_2048": 1 - float(lengths.mean()) / 2048,
    }
    for batch in held:
        batch.close()
    return out


def main() -> None:
    torch.set_num_threads(1)
    with torch.no_grad():
        result = {
            "append_microseconds": append_times(),
            "block_operations_per_second": block_operations(),
            "waste": waste(),
        }
    print(record.write("kv-cache", result))
    for name, value in result.items():
        print(name, value)


if __name__ == "__main__":
    main()
