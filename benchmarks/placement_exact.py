"""The exact search against MiniMalloc: one capacity, least peak with proof, and made-up instances of the same kind.

    MEMFIT_MINIMALLOC=path/to/minimalloc python benchmarks/placement_exact.py FOLDER [--quick]

FOLDER holds instances named NAME.CAPACITY.csv in MiniMalloc's column format (its benchmarks/challenging). Without the
binary its columns stay empty, which is said. Writes benchmarks/results/placement-exact.json. Tables:
  capacity  a placement at the stated capacity: CPU seconds of one thread here (preparation included, reading the file
            not) and there (the whole process: starting it and reading the file take some milliseconds); both in turn, in
            one run; and here with five other seeds, since one seed could be luck;
  minimise  the least peak in --seconds of wall time, and what is proved;
  made-up   rectangles cut into pieces (no byte to spare), and the instances of FOLDER with every size changed by up to
            7 % at 1.01 of their load: both sides with --seconds (of wall time) each.
Every placement is checked by the validator before it is counted.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import resource
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import record

from memfit.planners import exact
from memfit.planners.problem import Ints, Placement, plain_instance, simple_problem
from memfit.planners.validate import why_invalid

Rows = tuple[Ints, Ints, Ints]


def read(path: Path) -> Rows:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    lower, upper, size = (np.array([int(row[k]) for row in rows], np.int64) for k in ("lower", "upper", "size"))
    return lower, upper, size


def load_of(rows: Rows) -> int:
    lower, upper, size = rows
    return int(max(size[(lower <= t) & (t < upper)].sum() for t in np.unique(lower)))


def check(rows: Rows, offset: Ints, limit: int) -> None:
    problem = simple_problem(*rows, capacity=limit)
    peak = int((offset + rows[2]).max())
    wrong = why_invalid(problem, Placement("exact", offset, np.zeros(len(offset), np.int64), peak, 0))
    assert not wrong, wrong
    assert peak <= limit


def ours(rows: Rows, limit: int, seed: int, seconds: float) -> tuple[bool, float]:
    """Whether it was placed, and CPU seconds."""
    outcome = exact.place(plain_instance(*rows), limit, seed=seed, time_limit=seconds)
    if outcome.offset is not None:
        check(rows, outcome.offset, limit)
    return outcome.offset is not None, outcome.seconds


def theirs(path: Path, limit: int, seconds: float) -> tuple[bool, float] | None:
    """Whether MiniMalloc placed it, and CPU seconds of the process; None without the binary."""
    binary = os.environ.get("MEMFIT_MINIMALLOC", "")
    if not binary:
        return None
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.NamedTemporaryFile(suffix=".csv") as out:
        command = [binary, f"--capacity={limit}", f"--input={path}", f"--output={out.name}", f"--timeout={seconds}s"]
        run = subprocess.run(command, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return run.returncode == 0, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cut_rectangle(seed: int, pieces: int, span: int, height: int) -> Rows:
    dice = random.Random(seed)
    parts = [(0, span, 0, height)]
    while len(parts) < pieces:
        parts.sort(key=lambda r: (r[1] - r[0]) * (r[3] - r[2]) * dice.uniform(0.2, 1))
        a, b, low, high = parts.pop()
        if (dice.random() < 0.7 and high - low > 1) or b - a < 2:
            cut = dice.randint(low + 1, high - 1)
            parts += [(a, b, low, cut), (a, b, cut, high)]
        else:
            cut = dice.randint(a + 1, b - 1)
            parts += [(a, cut, low, high), (cut, b, low, high)]
    dice.shuffle(parts)
    columns = [np.array(column, np.int64) for column in zip(*parts, strict=True)]
    return columns[0], columns[1], columns[3] - columns[2]


def jittered(rows: Rows, seed: int) -> Rows:
    dice = random.Random(seed)
    return rows[0], rows[1], np.array([max(1, int(s // 1024 * dice.uniform(0.93, 1.07))) for s in rows[2]], np.int64)


def capacity_table(files: list[Path], quick: bool) -> list[dict[str, Any]]:
    table = []
    for path in files:
        rows, limit = read(path), int(path.name.split(".")[1])
        placed, seconds = ours(rows, limit, 0, 60)
        peer = theirs(path, limit, 60)
        seeds = [ours(rows, limit, seed, 20) for seed in range(1, 2 if quick else 6)]
        row: dict[str, Any] = {
            "instance": path.name.split(".")[0], "buffers": len(rows[0]), "capacity": limit, "placed": placed,
            "cpu_seconds": seconds, "other_seeds_placed": sum(s[0] for s in seeds),
            "other_seeds_cpu_seconds": [s[1] for s in seeds],
            "minimalloc_placed": peer and peer[0], "minimalloc_cpu_seconds": peer and peer[1],
            "ratio": seconds / peer[1] if peer else None,
        }  # fmt: skip
        table.append(row)
        print(f"{row['instance']:3} {'placed' if placed else 'NOT'} {seconds:7.3f} s", end="")
        print(f"  other seeds {row['other_seeds_placed']}/{len(seeds)}, worst {max(s[1] for s in seeds):.3f} s", end="")
        print(f"  minimalloc {peer[1]:.2f} s, ratio {row['ratio']:.4f}" if peer else "  minimalloc not found")
    return table


def minimise_table(files: list[Path], seconds: float) -> list[dict[str, Any]]:
    table = []
    for path in files:
        rows = read(path)
        least = exact.minimise(plain_instance(*rows), time_limit=seconds)
        assert least.offset is not None
        check(rows, least.offset, least.peak)
        row = {
            "instance": path.name.split(".")[0], "peak": least.peak, "bound": least.bound, "optimal": least.proved,
            "load": load_of(rows), "gap": least.peak / least.bound - 1, "cpu_seconds": least.seconds, "limit_s": seconds,
        }  # fmt: skip
        table.append(row)
        print(f"{row['instance']:3} peak {least.peak} bound {least.bound} optimal {least.proved} {least.seconds:.2f} s")
    return table


def made_up_table(files: list[Path], seconds: float) -> list[dict[str, Any]]:
    cases = [(f"cut {seed}", cut_rectangle(seed, 80 + 30 * seed, 200, 4000), 4000) for seed in range(6)]
    for seed, path in enumerate(files):
        rows = jittered(read(path), seed)
        cases.append((f"jittered {path.name.split('.')[0]}", rows, int(load_of(rows) * 1.01)))
    table = []
    for name, rows, limit in cases:
        placed, cpu = ours(rows, limit, 0, seconds)
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
            file.write("id,lower,upper,size\n")
            file.writelines(f"{k},{a},{b},{s}\n" for k, (a, b, s) in enumerate(zip(*rows, strict=True)))
            file.flush()
            peer = theirs(Path(file.name), limit, seconds)
        table.append({
            "instance": name, "buffers": len(rows[0]), "capacity": limit, "placed": placed, "cpu_seconds": cpu,
            "minimalloc_placed": peer and peer[0], "minimalloc_cpu_seconds": peer and peer[1],
        })  # fmt: skip
        print(f"{name:12} {'placed' if placed else 'open  '} {cpu:.3f} s  minimalloc {peer}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--quick", action="store_true", help="one other seed, nothing made up")
    options = parser.parse_args()
    if not os.environ.get("MEMFIT_MINIMALLOC"):
        print("MiniMalloc not found: MEMFIT_MINIMALLOC names no binary; its columns stay empty")
    files = sorted(options.folder.glob("*.csv"))
    capacity = capacity_table(files, options.quick)
    here = sum(row["cpu_seconds"] for row in capacity)
    there = [row["minimalloc_cpu_seconds"] for row in capacity if row["minimalloc_cpu_seconds"] is not None]
    result: dict[str, Any] = {
        "capacity": capacity, "cpu_seconds": here, "minimalloc_cpu_seconds": sum(there) if there else None,
        "ratio": here / sum(there) if there else None, "minimise": minimise_table(files, options.seconds),
        "made_up": [] if options.quick else made_up_table(files, options.seconds),
    }  # fmt: skip
    print(f"sum here {here:.3f} s, minimalloc {result['minimalloc_cpu_seconds']}, ratio {result['ratio']}")
    print(record.write("placement-exact", result))


if __name__ == "__main__":
    main()
