"""A peer of locality.py: pycachesim on the same accesses; prints one JSON object. Lists are made before the clock starts.

python pycachesim_misses.py
"""

import importlib.metadata
import json
import time

import cachesim

LEVELS = (("L1", 64, 12), ("L2", 1024, 16), ("L3", 32768, 16))
N = 256


def hierarchy(levels=LEVELS):
    memory = cachesim.MainMemory()
    caches = []
    for name, sets, ways in reversed(levels):
        outer = caches[-1] if caches else None
        caches.append(cachesim.Cache(name, sets, ways, 64, "LRU", load_from=outer, store_to=outer))
    memory.load_to(caches[0])
    memory.store_from(caches[0])
    return cachesim.CacheSimulator(caches[-1], memory)


def misses(simulator):
    return [level["MISS_count"] for level in simulator.stats() if level["name"] != "MEM"][: len(LEVELS)]


def product(order, row):
    """Accesses of the product, its misses by level, CPU seconds inside pycachesim's own loops."""
    simulator = hierarchy()
    size = -(-N * row * 4 // 4096) * 4096
    a, b, c = 4096, 4096 + size, 4096 + 2 * size
    seconds, count = 0.0, 0
    for i in range(N):
        for outer in range(N):
            if order == "ijk":
                loads = [x for k in range(N) for x in (a + 4 * (i * row + k), b + 4 * (k * row + outer))]
                begun = time.process_time()
                simulator.load(loads, length=4)
                simulator.store(c + 4 * (i * row + outer), length=4)
                count += len(loads) + 1
            else:
                pairs = [
                    ((b + 4 * (outer * row + j), c + 4 * (i * row + j)), (c + 4 * (i * row + j),)) for j in range(N)
                ]
                begun = time.process_time()
                simulator.load(a + 4 * (i * row + outer), length=4)
                simulator.loadstore(pairs, length=4)
                count += 3 * N + 1
            seconds += time.process_time() - begun
    return {"accesses": count, "misses": misses(simulator), "cpu_seconds": seconds}


def accumulator():
    """L1 misses of streaming loads with eight stores after each that a store that hits must keep in the cache."""
    simulator = hierarchy(LEVELS[:1])
    for t in range(20_000):
        simulator.load((1 << 30) + 64 * t)
        for q in range(8):
            simulator.store((1 << 20) + 64 * ((t % 64) + 64 * q))
    return misses(simulator)[0]


print(
    json.dumps(
        {
            "version": importlib.metadata.version("pycachesim"),
            "accumulator": accumulator(),
            "products": {
                f"{order} {row}": product(order, row) for order, row in (("ijk", 256), ("ijk", 272), ("ikj", 256))
            },
        }
    )
)
