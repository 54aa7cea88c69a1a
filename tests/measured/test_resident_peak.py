"""Projected peak resident memory against VmHWM of fresh processes that run the same program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.measured,
    pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc"),
]

RUN = """
import json, sys
sys.path.insert(0, "examples")
import zoo
from memfit.frameworks.torch.steps import run_step
from memfit.machine.process import process_bytes
settings = json.loads(sys.argv[2])
step = getattr(zoo, sys.argv[1])(**settings)
for _ in range(2):
    run_step(step)
print(process_bytes("VmHWM"))
"""

PREDICT = """
import json, sys
sys.path.insert(0, "examples")
import zoo
from memfit.allocators.resident import predict_resident
from memfit.frameworks.torch.tape import trace_step
settings = json.loads(sys.argv[2])
print(json.dumps(predict_resident(trace_step(lambda: getattr(zoo, sys.argv[1])(**settings)))))
"""


def fresh(code: str, name: str, settings: dict[str, object]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, name, json.dumps(settings)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mlp", {"optimizer": "sgd", "batch": 256}),
        ("conv3d", {"optimizer": "none", "train": False, "batch": 8}),
        ("r", {"optimizer": "sgd_momentum", "batch": 8}),
    ],
)
def test_projected_peak_holds_the_measured_one(name: str, settings: dict[str, object]) -> None:
    measured = int(fresh(RUN, name, settings))
    low, expected, high = json.loads(fresh(PREDICT, name, settings))
    assert 0.97 * low <= measured <= 1.03 * high
    assert abs(expected / measured - 1) <= 0.08, (expected, measured)
