"""The shared resident set of a fresh process is what was written to a key/value cache, in whole pages."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np
from memfit.runtime.kv_cache import KeyValueStore, LayerShape
def resident():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("RssShmem"))
shape = LayerShape(8, 256, 256)
store = KeyValueStore(1 << 28, shape, layers=1)
store.add_layer(shape)
data = np.ones((1, 1000, 8, 64), np.float32)
before = resident()
rows = store.rows(1)
rows.add_layer()
start = rows.prepare(0, 1000)
for appender in rows.appenders:
    appender.append(data.ctypes.data, 1000 * 2048, 256, 2048, start, 1000)
rows.wrote(0, 1000)
print(resident() - before, store.resident)
rows.close()
print(resident() - before, store.resident)
"""


@pytest.mark.measured
def test_the_resident_set_is_what_was_written() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(2 * 1000 * 2048)] * 2 + ["0", "0"]
