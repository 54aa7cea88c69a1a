"""A model larger than a hard limit of the operating system runs paged under it, bit for bit; in memory it cannot."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import torch
from torch import nn

def step(layers=48):
    return nn.Sequential(*[nn.Linear(1024, 1024, bias=False) for _ in range(layers)]), torch.ones(4, 1024)
"""
SAVE = """
import sys
sys.path.insert(0, {folder!r})
import torch, program
from safetensors.torch import save_file
torch.manual_seed(0)
save_file(program.step()[0].state_dict(), {weights!r})
"""
WHOLE = """
import sys
sys.path.insert(0, {folder!r})
import torch, program
from memfit.frameworks.torch.paged_run import fingerprint
from safetensors.torch import load_file, save_file
if sys.argv[1] == "size":
    import memfit
    from memfit.machine.process import process_bytes
    save_file({{"0.weight": torch.ones(1024, 1024)}}, {weights!r} + ".one")
    memfit.run({folder!r} + "/program.py:step", {weights!r} + ".one", budget="24MiB", settings={{"layers": 1}})
    print(process_bytes("VmData"))
else:
    model, inputs = program.step()
    model.load_state_dict(load_file({weights!r}), assign=False)
    with torch.no_grad():
        print(fingerprint(model(inputs)))
"""
BUDGET = 24 << 20
BESIDE = 48 << 20
"""What the command needs beyond the same command on one layer."""


def run(arguments: list[str], limit: int | None = None) -> subprocess.CompletedProcess[str]:
    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, preexec_fn=limited
    )


@pytest.mark.measured
def test_four_times_the_budget_under_a_hard_limit(tmp_path: Path) -> None:
    program, weights = tmp_path / "program.py", tmp_path / "w.safetensors"
    program.write_text(PROGRAM)
    names = {"folder": str(tmp_path), "weights": str(weights)}
    assert run(["-c", SAVE.format(**names)]).returncode == 0
    whole = run(["-c", WHOLE.format(**names), "run"])
    limit = int(run(["-c", WHOLE.format(**names), "size"], 4 << 30).stdout) + BUDGET + BESIDE
    assert weights.stat().st_size > BUDGET + BESIDE
    paged = run(
        ["-m", "memfit.cli.main", "run", f"{program}:step", "--weights", str(weights), "--budget", str(BUDGET), "--json"],
        limit,
    )  # fmt: skip
    assert paged.returncode == 0, paged.stderr
    report = json.loads(paged.stdout)
    assert report["output_sha256"] == whole.stdout.strip()
    assert report["projected"]["peak"] <= BUDGET
    assert report["measured"]["peak"] is None or report["measured"]["peak"] <= BUDGET
    assert report["measured"]["resident_weights"] < BUDGET < report["weights"]
    assert run(["-c", WHOLE.format(**names), "run"], limit).returncode != 0
