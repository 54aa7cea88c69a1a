"""Projected against measured bytes over a part of the zoo, each figure from a process of its own.

The whole table is ``benchmarks/accuracy.py``; this runs it on one architecture of each kind of memory shape.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUBSET = "gpt2,t5,convnext,conv3d,lstm,mixtral,mamba,wav2vec2"


@pytest.mark.measured
@pytest.mark.slow
def test_errors_over_the_zoo(tmp_path: Path) -> None:
    output = tmp_path / "accuracy.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "accuracy.py"), "--no-peer", "--only", SUBSET]
    command += ["--modes", "inference,adamw_foreach", "--output", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    cases = json.loads(output.read_text())["cases"]
    assert len(cases) == 2 * len(SUBSET.split(","))
    failed = {name: case for name, case in cases.items() if "projected" not in case or "measured" not in case}
    assert not failed
    errors = {name: abs(case["projected"] / case["measured"] - 1) for name, case in cases.items()}
    assert max(errors.values()) <= 0.02, errors
    assert statistics.median(errors.values()) <= 0.0005, errors
