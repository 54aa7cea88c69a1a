"""The peer of replacement.py: libCacheSim's own loop over a trace file; prints one JSON object.

python libcachesim_misses.py TRACE CAPACITY REPEATS     TRACE: libCacheSim's oracleGeneral format
"""

import json
import sys
import time

import libcachesim

POLICIES = {
    "fifo": "FIFO", "lru": "LRU", "clock": "Clock", "2q": "TwoQ", "arc": "ARC", "s3-fifo": "S3FIFO", "sieve": "Sieve",
    "opt": "Belady",
}  # fmt: skip
path, capacity, repeats = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
found = {}
for name, made in POLICIES.items():
    seconds = []
    for _ in range(repeats):
        reader = libcachesim.TraceReader(
            path, libcachesim.TraceType.ORACLE_GENERAL_TRACE, libcachesim.ReaderInitParam(ignore_obj_size=True)
        )
        cache = getattr(libcachesim, made)(cache_size=capacity, hashpower=20)
        begun = time.process_time()
        misses, _ = cache.process_trace(reader)
        seconds.append(time.process_time() - begun)
    found[name] = {"cpu_seconds": min(seconds), "hit_rate": 1 - misses}
print(json.dumps({"version": libcachesim.__version__, "policies": found}))
