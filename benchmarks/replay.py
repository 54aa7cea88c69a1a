"""Speed of the caching allocator's replay, compiled and twin, beside STAlloc's C++ port; of advice; of reading snapshots.

    python benchmarks/replay.py [--stalloc FOLDER --cuda FOLDER] [--repeats 9]

CPU seconds, the fastest of several runs each, one after the other in one process (the peer: a fresh process each, timed
by itself). ``FOLDER``: a checkout of STAlloc, and the CUDA toolkit for its headers; without them the peer is left out and
the result says so. Traces: ``instances/replay``, sizes x64.
"""

from __future__ import annotations

import argparse
import gzip
import os
import pickle
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import record

from memfit import _core
from memfit.allocators.advise import advise
from memfit.allocators.caching import CachingPolicy, kernel_arguments
from memfit.allocators.caching_columns import columns_of
from memfit.allocators.caching_settings import parse_settings
from memfit.allocators.plain_pickle import loads_plain
from memfit.allocators.snapshots import check_addresses, snapshots_of
from memfit.ir.requests import Requests, requests_of_events

HERE = Path(__file__).parent
SCALE = 64
SETTINGS = ("", "expandable_segments:True", "max_split_size_mb:128")


def trace(name: str) -> Requests:
    held = np.load(HERE / "instances" / "replay" / f"{name}.npz")
    nbytes = held["nbytes"].astype(np.int64)
    return requests_of_events(held["block"], np.where(nbytes > 0, nbytes * SCALE, -1))


def build_peer(stalloc: Path | None, cuda: Path | None) -> tuple[Path | None, str]:
    """The peer's program, or None and why there is none."""
    if stalloc is None or cuda is None:
        return None, "left out: no checkout of STAlloc or no CUDA headers given"
    folder = Path(tempfile.mkdtemp())
    (folder / "versions.map").write_text("libcudart.so.13 { global: *; };\n")
    source, include = stalloc / "Allocator", f"-I{cuda / 'include'}"
    driver = HERE / "real_allocator" / "driver.cc"
    commands = [
        ["g++", "-O2", "-std=c++17", "-shared", "-fPIC", include, str(driver), "-Wl,-soname,libcudart.so.13",
         f"-Wl,--version-script={folder / 'versions.map'}", "-o", str(folder / "libcudart.so.13")],
        ["g++", "-O3", "-std=c++17", f"-I{source}", include, str(HERE / "peers" / "stalloc.cc"),
         str(source / "CUDACachingAllocator.cpp"), f"-L{folder}", "-l:libcudart.so.13", f"-Wl,-rpath,{folder}", "-o",
         str(folder / "stalloc")],
    ]  # fmt: skip
    for command in commands:
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            return None, f"left out: it does not build here ({ran.stderr.strip().splitlines()[-1]})"
    return folder / "stalloc", "built with -O3 over a driver that only counts"


def run_peer(program: Path, requests: Requests) -> dict[str, Any]:
    path = program.parent / "trace.bin"
    np.concatenate([requests.block, requests.nbytes]).astype(np.int64).tofile(path)
    ran = subprocess.run(
        [str(program), str(path)], capture_output=True, text=True, check=True,
        env={**os.environ, "MEMFIT_DEVICE_BYTES": str(1 << 45)},
    )  # fmt: skip
    seconds, reserved = next(line for line in ran.stdout.splitlines() if line.startswith("result")).split()[1:]
    return {"seconds": float(seconds), "reserved": int(reserved)}


def replays(name: str, peer: Path | None, repeats: int) -> dict[str, Any]:
    requests = trace(name)
    events = len(requests)
    out: dict[str, Any] = {"events": events, "live_peak": CachingPolicy().replay(requests).peak_live, "settings": {}}
    compiled: dict[str, list[float]] = {conf: [] for conf in SETTINGS}
    twin: dict[str, list[float]] = {conf: [] for conf in SETTINGS}
    rivals: list[dict[str, Any]] = []
    reserved: dict[str, int] = {}
    for repeat in range(repeats):  # in turns, so that all meet the same machine
        for conf in SETTINGS:
            settings = parse_settings(conf)
            arguments = kernel_arguments(columns_of(requests, settings), settings)
            begun = time.thread_time()
            found = _core.replay_caching(*arguments, -1, False)
            compiled[conf].append(time.thread_time() - begun)
            reserved[conf] = found[1]
            if repeat < 5:
                told = CachingPolicy(settings).replay(requests, twin=True)
                twin[conf].append(told.seconds)
                assert told.peak_reserved == found[1]
        if peer is not None:
            rivals.append(run_peer(peer, requests))
    for conf in SETTINGS:
        out["settings"][conf or "defaults"] = {
            "compiled_events_per_second": events / min(compiled[conf]), "twin_events_per_second": events / min(twin[conf]),
            "reserved": reserved[conf],
        }  # fmt: skip
    if rivals:
        best = min(rival["seconds"] for rival in rivals)
        out["stalloc"] = {"events_per_second": events / best, "reserved": rivals[0]["reserved"]}
    return out


def advice(name: str) -> dict[str, Any]:
    requests = trace(name)
    best: dict[str, Any] = {}
    for _ in range(3):
        begun = time.process_time()
        found = advise(requests)
        seconds = time.process_time() - begun
        if not best or seconds < best["cpu_seconds"]:
            best = {"events": len(requests), "settings": len(found.rows), "cpu_seconds": seconds}
    best["lower_bound"] = found.lower_bound
    best["rows"] = [
        {
            "string": row.string, "smallest_capacity": row.smallest_capacity, "driver_calls": row.driver_calls,
            "reserved": row.reserved, "proved": row.proved,
        }
        for row in found.rows
    ]  # fmt: skip
    return best


def snapshot_reading() -> dict[str, Any]:
    """Entries a second through the scan, the unpickler and the reading; and through the check of every address."""
    path = HERE.parent / "tests" / "data" / "snapshots" / "variable.pickle.gz"
    held = pickle.loads(gzip.decompress(path.read_bytes()))
    one = held["device_traces"][0]
    last = max(entry["addr"] for entry in one) + (1 << 30)
    several = [{**entry, "addr": entry["addr"] + last * turn} for turn in range(8) for entry in one]
    data = pickle.dumps({**held, "segments": [], "device_traces": [several]}, 4)
    loading, reading = [], []
    for _ in range(5):
        begun = time.process_time()
        loaded = loads_plain(data)
        loading.append(time.process_time() - begun)
        snapshots_of(loaded)
        reading.append(time.process_time() - begun)
    (snapshot,) = snapshots_of(held)
    begun = time.process_time()
    found = check_addresses(snapshot)
    return {
        "entries": len(several), "bytes": len(data), "scanned_and_loaded_per_second": len(several) / min(loading),
        "read_per_second": len(several) / min(reading), "checked_addresses": found.checked, "differing": found.differing,
        "checked_entries_per_second": len(one) / (time.process_time() - begun),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Replay, advice and snapshots of the caching allocator.")
    parser.add_argument(
        "--stalloc", type=Path, default=os.environ.get("MEMFIT_STALLOC") and Path(os.environ["MEMFIT_STALLOC"])
    )
    parser.add_argument("--cuda", type=Path, default=os.environ.get("CUDA_HOME") and Path(os.environ["CUDA_HOME"]))
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    peer, why = build_peer(given.stalloc, given.cuda)
    result = {
        "what": f"six-layer transformer in training, sizes x{SCALE}; CPU seconds, fastest of {given.repeats}",
        "peer": f"STAlloc's C++ port of the allocator: {why}",
        "replay": {name: replays(name, peer, given.repeats) for name in ("fixed", "variable")},
        "advice": {name: advice(name) for name in ("fixed", "variable")},
        "snapshots": snapshot_reading(),
    }
    print(record.write("replay", result))
    for name, row in result["replay"].items():
        for conf, told in row["settings"].items():
            speeds = [told[f"{which}_events_per_second"] / 1e6 for which in ("compiled", "twin")]
            print(f"{name:9s} {conf:25s} compiled {speeds[0]:5.1f} M/s  twin {speeds[1]:5.2f} M/s")
        if "stalloc" in row:
            print(f"{name:9s} {'STAlloc':25s} compiled {row['stalloc']['events_per_second'] / 1e6:5.1f} M/s")
    for name, row in result["advice"].items():
        print(f"{name:9s} advice: {row['settings']} settings, {row['events']} events, {row['cpu_seconds']:.2f} CPU s")
    print({key: value for key, value in result["snapshots"].items() if "second" in key})


if __name__ == "__main__":
    main()
