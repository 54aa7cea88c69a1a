"""Peak of the whole process (VmHWM), projected against measured, over the zoo.

    python benchmarks/resident.py [--only gpt2,r] [--modes inference,sgd,adamw] [--jobs 2]

Both sides run in a new interpreter each, which imports, builds and runs (or predicts) one program and nothing else, on one
thread. Measured: VmHWM after two steps. Peer: torch's MemTracker figure for the same case from ``accuracy.json``, where
there is one: it has no figure for the process, which is the point.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import record

HERE = Path(__file__).resolve().parent
MODES: dict[str, dict[str, Any]] = {
    "inference": {"train": False},
    "sgd": {"optimizer": "sgd"},
    "adamw": {"optimizer": "adamw"},
}

MEASURE = """
import sys, json, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
import zoo
from memfit.frameworks.torch.steps import run_step
torch.manual_seed(0)
step = getattr(zoo, sys.argv[2])(**json.loads(sys.argv[3]))
for _ in range(2): run_step(step)
line = next(l for l in open("/proc/self/status") if l.startswith("VmHWM:"))
print(json.dumps({"resident": int(line.split()[1]) * 1024}))
"""
PROJECT = """
import sys, json, time, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
import zoo, memfit
torch.manual_seed(0)
peak = memfit.predict(getattr(zoo, sys.argv[2]), settings=json.loads(sys.argv[3]), steps=2).peak
print(json.dumps({"projected": peak.resident, "interval": peak.intervals.get("resident"), "live": peak.live}))
"""


def ask(program: str, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One new interpreter."""
    command = [sys.executable, "-c", program, str(HERE.parent / "examples"), name, json.dumps(settings)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if run.returncode:
        return {"error": (run.stderr.strip().splitlines() or ["died"])[-1][:200]}
    return dict(json.loads(run.stdout.splitlines()[-1]))


def case(name: str, mode: str) -> dict[str, Any]:
    """Both sides of one case."""
    row: dict[str, Any] = {"architecture": name, "mode": mode, **ask(MEASURE, name, MODES[mode])}
    row |= ask(PROJECT, name, MODES[mode])
    if "resident" in row and "projected" in row:
        row["error_percent"] = 100 * (row["projected"] / row["resident"] - 1)
        row["inside"] = row["interval"] is None or row["interval"][0] <= row["resident"] <= row["interval"][1]
    print(f"{name:24}{mode:11}{row.get('error_percent', float('nan')):+7.2f} %  {row.get('error', '')}", flush=True)
    return row


def main() -> None:
    """Run the cases and write the table."""
    sys.path.insert(0, str(HERE.parent / "examples"))
    import zoo

    parser = argparse.ArgumentParser()
    parser.add_argument("--only")
    parser.add_argument("--modes", default="inference,sgd,adamw")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--name", default="resident")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(zoo.ARCHITECTURES)
    cases = [(name, mode) for mode in options.modes.split(",") for name in names]
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda pair: case(*pair), cases))
    errors = [row["error_percent"] for row in rows if "error_percent" in row]
    sizes = sorted(abs(error) for error in errors)
    summary = {
        "cases": len(rows), "answered": len(errors), "median": statistics.median(sizes), "mean": statistics.fmean(sizes),
        "p90": sizes[int(0.9 * (len(sizes) - 1))], "worst": sizes[-1],
        "under_by_2_percent": sum(error < -2 for error in errors) / len(errors),
        "inside_interval": sum(row.get("inside", False) for row in rows) / len(errors),
    }  # fmt: skip
    print(json.dumps(summary, indent=1))
    print("wrote", record.write(options.name, {"summary": summary, "rows": rows}))


if __name__ == "__main__":
    main()
