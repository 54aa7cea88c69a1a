"""The smallest slope that the leak hunt promises to find, in a process of the size that it promises it for."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import numpy as np

def main():
    weights = np.ones(1 << 27)                                              # 1 GiB, touched
    kept, total = [], 0.0
    for step in range(200):
        activations = np.full((1 + step % 3) << 18, step, np.float64)       # 2 to 6 MiB, freed
        if LEAK:
            kept.append(bytes(4096))
        total += float(activations[::4096].sum()) + float(weights[step])
    print(total)

main()
"""


def found(tmp_path, leak):
    (tmp_path / "large.py").write_text(SCRIPT.replace("LEAK", str(leak)))
    run = subprocess.run([sys.executable, "-m", "memfit.cli.main", "leaks", "--json", "large.py"], capture_output=True,
                         text=True, cwd=tmp_path, timeout=120, check=True)  # fmt: skip
    return json.loads(run.stdout)


def test_four_kib_a_step_in_a_process_of_one_gib_within_200_steps(tmp_path):
    said = found(tmp_path, True)
    assert said["leaking"] is True
    assert said["steps"] == 200
    assert max(resident for _, resident in said["curves"]["resident"]) > 1 << 30
    first = said["findings"][0]
    assert first["holder"] == "kept in main()"
    assert first["birth"] == "large.py:10"
    assert 3500 < first["bytes_per_step"] < 4700


def test_the_same_process_without_it_is_silent(tmp_path):
    said = found(tmp_path, False)
    assert said["leaking"] is False
    assert said["findings"] == []
