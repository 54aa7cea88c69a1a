"""Peers of locality.py: Valgrind's Cachegrind and Callgrind, pycachesim, py-cpuinfo; what is missing is left out, said so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "peers"
LEVELS = ("--I1=32768,8,64", "--D1=49152,12,64", "--LL=33554432,16,64")
_CPUINFO = """
import importlib.metadata, json, time
begun = time.perf_counter()
import cpuinfo
found = cpuinfo.get_cpu_info()
print(json.dumps({"version": importlib.metadata.version("py-cpuinfo"), "seconds": time.perf_counter() - begun,
                  **{name: value for name, value in found.items() if "cache" in name}}))
"""


def answer_of(command: list[str], what: str) -> dict[str, Any] | str:
    """The JSON object that a peer prints last, or why it is left out."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"left out: {what} failed ({(done.stderr.strip().splitlines() or ['no message'])[-1][:200]})"
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def pycachesim(python: str | None) -> dict[str, Any] | str:
    """Accesses, misses, CPU seconds of pycachesim on the products; L1 misses of the accumulator."""
    if not python:
        return "left out: no interpreter with pycachesim given"
    return answer_of([python, str(FOLDER / "pycachesim_misses.py")], "pycachesim")


def cpuinfo(python: str | None) -> dict[str, Any] | str:
    """What py-cpuinfo says of the caches here."""
    if not python:
        return "left out: no interpreter with py-cpuinfo given"
    return answer_of([python, "-c", _CPUINFO], "py-cpuinfo")


class Valgrind:
    """Cachegrind and Callgrind over ``peers/cache_kernels.cc``, compiled into ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.why = folder, ""
        self.program = folder / "cache_kernels"
        compiler = os.environ.get("CXX") or next((n for n in ("c++", "g++", "clang++") if shutil.which(n)), None)
        if not shutil.which("valgrind") or not compiler:
            self.why = "left out: valgrind or a C++ compiler is not installed"
            print(self.why, file=sys.stderr)
            return
        source = FOLDER / "cache_kernels.cc"
        subprocess.run([compiler, "-O1", "-fno-tree-vectorize", str(source), "-o", str(self.program)], check=True)

    def version(self) -> str:
        return subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout.strip()

    def _events(self, tool: str, settings: list[str], order: str, size: int, row: int, runs: int) -> dict[str, int]:
        out = self.folder / "events.out"
        command = ["valgrind", f"--tool={tool}", f"--{tool}-out-file={out}", "--cache-sim=yes", *LEVELS, *settings,
                   str(self.program), order, str(size), str(row), str(runs)]  # fmt: skip
        subprocess.run(command, capture_output=True, check=True)
        names, totals = [], []
        for line in out.read_text().splitlines():
            if line.startswith("events:"):
                names = line.split()[1:]
            elif line.startswith(("summary:", "totals:")):
                totals = [int(number) for number in line.split()[1:]]
        return dict.fromkeys(names, 0) | dict(zip(names, totals, strict=False))  # zeros at the end are left out there

    def misses(self, order: str, size: int, row: int) -> int:
        """First-level data misses of one call of a kernel, by Callgrind, counted inside of the function alone."""
        events = self._events("callgrind", [f"--toggle-collect={order}"], order, size, row, 1)
        return events["D1mr"] + events["D1mw"]

    def speed(self, order: str, size: int, row: int, runs: int, repeats: int) -> dict[str, float]:
        """Data accesses a CPU second of Cachegrind in the kernel: a run's time less that of a run that calls nothing."""
        fastest, accesses = [], []
        for count in (0, runs):
            best = float("inf")
            for _ in range(repeats):
                before = os.times()
                events = self._events("cachegrind", [], order, size, row, count)
                after = os.times()
                best = min(
                    best, after.children_user + after.children_system - before.children_user - before.children_system
                )
            fastest.append(best)
            accesses.append(events["Dr"] + events["Dw"])
        seconds, count = fastest[1] - fastest[0], accesses[1] - accesses[0]
        return {"accesses": count, "cpu_seconds": seconds, "million_accesses_per_second": count / seconds / 1e6}


def busy_processes() -> list[subprocess.Popen[bytes]]:
    """Two other programs: one that computes, one that copies 64 MiB again and again; the caller ends them."""
    texts = ("while True: sum(range(100000))",
             "import numpy as np\na = np.zeros(1 << 23); b = np.zeros(1 << 23)\nwhile True: b[:] = a")  # fmt: skip
    running = [subprocess.Popen([sys.executable, "-c", text]) for text in texts]
    time.sleep(0.5)
    return running
