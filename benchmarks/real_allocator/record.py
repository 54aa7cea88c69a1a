"""Snapshots by torch's released allocator, without a GPU: its own binary over a driver that only counts.

    python benchmarks/real_allocator/record.py --torch UNPACKED --cuda CUDA [--build FOLDER]

``UNPACKED`` holds ``torch/lib`` and ``torch/include`` of a CUDA wheel, ``CUDA`` the toolkit's headers. ``driver.cc`` stands
in for the CUDA runtime, ``program.cc`` drives ``libc10_cuda`` by commands; the snapshots are what that library reports.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import pickle
import random
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
TRACES = HERE.parent / "instances" / "replay"
DATA = HERE.parent.parent / "tests" / "data" / "snapshots"


def build(torch: Path, cuda: Path, folder: Path) -> Path:
    """Compile the driver and the program into ``folder``; returns the program."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "versions.map").write_text("libcudart.so.13 { global: *; };\n")
    library, headers = torch / "torch" / "lib", torch / "torch" / "include"
    shared = ["g++", "-O1", "-shared", "-fPIC", "-std=c++17", f"-I{cuda / 'include'}"]
    subprocess.run(
        [*shared, str(HERE / "driver.cc"), f"-Wl,--version-script={folder / 'versions.map'}",
         "-Wl,-soname,libcudart.so.13", "-o", str(folder / "libcudart.so.13")], check=True,
    )  # fmt: skip
    subprocess.run(
        [*shared, str(HERE / "management.cc"), "-Wl,-soname,libnvidia-ml.so.1", "-o", str(folder / "libnvidia-ml.so.1")],
        check=True,
    )  # fmt: skip
    program = folder / "program"
    subprocess.run(
        ["g++", "-O1", "-std=c++20", f"-I{headers}", f"-I{cuda / 'include'}", str(HERE / "program.cc"), f"-L{folder}",
         f"-L{library}", "-lc10_cuda", "-lc10", "-l:libcudart.so.13", f"-Wl,-rpath,{folder}:{library}", "-o", str(program)],
        check=True,
    )  # fmt: skip
    return program


def snapshot(
    program: Path, commands: str, settings: str, device_bytes: int, addresses: str = "rising", delay: int = 5
) -> dict[str, Any]:
    """The snapshot dictionary, in the form of torch.cuda.memory._snapshot(), after ``commands``."""
    surroundings = {
        **os.environ, "LD_LIBRARY_PATH": str(program.parent), "PYTORCH_ALLOC_CONF": settings,
        "MEMFIT_DEVICE_BYTES": str(device_bytes), "MEMFIT_ADDRESSES": addresses, "MEMFIT_EVENT_DELAY": str(delay),
    }  # fmt: skip
    ran = subprocess.run([str(program)], input=commands, text=True, capture_output=True, env=surroundings, check=False)
    if ran.returncode:
        raise RuntimeError(ran.stderr[:2000])
    limits = [float(line.split()[1]) for line in commands.splitlines() if line.startswith("F ")]
    found = as_torch_says_it(json.loads(ran.stdout), device_bytes)
    if limits:
        found["memfit"]["memory_fraction"] = limits[-1:]
    return found


def as_torch_says_it(found: dict[str, Any], device_bytes: int) -> dict[str, Any]:
    segments = []
    for address, total, requested, allocated, active, stream, large, expandable, high, low, blocks in found["segments"]:
        listed, at = [], address
        for size, asked, used, busy in blocks:
            state = "active_allocated" if used else "active_pending_free" if busy else "inactive"
            listed.append({"address": at, "size": size, "requested_size": asked, "state": state, "frames": []})
            at += size
        segments.append(
            {
                "device": 0, "address": address, "total_size": total, "allocated_size": allocated, "active_size": active,
                "requested_size": requested, "stream": stream, "segment_type": "large" if large else "small",
                "segment_pool_id": (high, low), "is_expandable": bool(expandable), "frames": [], "blocks": listed,
            }
        )  # fmt: skip
    trace = [
        {
            "action": action, "device_free" if action == "oom" else "addr": address, "size": size, "stream": stream,
            "pool_id": (high, low), "time_us": number, "frames": [],
        }
        for number, (action, address, size, stream, high, low) in enumerate(found["trace"])
    ]  # fmt: skip
    return {
        "segments": segments, "device_traces": [trace],
        "allocator_settings": {"PYTORCH_CUDA_ALLOC_CONF": found["settings"]},
        "memfit": {"device_bytes": [device_bytes]},
    }  # fmt: skip


MIB = 1 << 20
SETTINGS = {
    "fixed": ("", 1.5, {}),
    "variable": ("", 3.0, {}),
    "variable-short-of-memory": ("", 1.04, {}),
    "expandable": ("expandable_segments:True", 3.0, {}),
    "expandable-short-of-memory": ("expandable_segments:True,large_segment_size_mb:12", 1.015, {}),
    "max-split": ("max_split_size_mb:64,max_non_split_rounding_mb:32", 1.05, {}),
    "streams": ("", 1.06, {"streams": 3}),
    "streams-expandable": ("expandable_segments:True", 1.04, {"streams": 3}),
    "graph": ("", 3.0, {"graph": True}),
    "garbage": ("garbage_collection_threshold:0.6,per_process_memory_fraction:0.9", 1.5, {}),
    "garbage-max-split": ("garbage_collection_threshold:0.7,per_process_memory_fraction:0.95,max_split_size_mb:128", 1.2, {}),
    "roundup": ("roundup_power2_divisions:[1:2,64:8,256:4,>:2]", 1.12, {}),
    "late": ("", 3.0, {"late": True}),
}  # fmt: skip


def commands_of(block: Any, nbytes: Any, *, streams: int = 1, graph: bool = False, late: bool = False) -> str:
    """A recorded trace as commands. ``streams``: some blocks are made on, or used by, others; ``graph``: one step's worth

    of events goes to a private pool under capture; ``late``: recording starts in the middle.
    """
    drawn = random.Random(1)
    lines = [] if late else ["h 10000000"]
    live: set[int] = set()
    events = len(block)
    for number, (name, size) in enumerate(zip(block.tolist(), nbytes.tolist(), strict=True)):
        if late and number == events // 2:
            lines.append("h 10000000")
        if graph and number in (events // 3, 2 * events // 3):
            lines.append("b 1" if number == events // 3 else "n 1")
        if size > 0:
            live.add(name)
            lines.append(f"a {name} {size * 64} {drawn.randrange(streams) if drawn.random() < 0.2 else 0}")
        elif name in live:
            live.remove(name)
            if streams > 1 and drawn.random() < 0.1:
                lines.append(f"r {name} {drawn.randrange(streams)}")
            lines.append(f"f {name}")
    return "\n".join([*lines, ""])


def main() -> None:
    """Record every run of ``SETTINGS`` into the tests' data."""
    parser = argparse.ArgumentParser(description="Snapshots of torch's released allocator without a GPU.")
    parser.add_argument(
        "--torch", type=Path, required=True, help="where torch/lib and torch/include of a CUDA wheel lie"
    )
    parser.add_argument("--cuda", type=Path, required=True, help="the CUDA toolkit, for its headers")
    parser.add_argument("--build", type=Path, default=None, help="where to compile (default: a temporary folder)")
    parser.add_argument("--events", type=int, default=12000, help="of each trace")
    given = parser.parse_args()
    program = build(given.torch, given.cuda, given.build or Path(tempfile.mkdtemp()))
    DATA.mkdir(parents=True, exist_ok=True)
    for name, (settings, room, how) in SETTINGS.items():
        held = np.load(TRACES / f"{'fixed' if name == 'fixed' else 'variable'}.npz")
        block, nbytes = held["block"][: given.events], held["nbytes"][: given.events].astype(np.int64)
        sizes = {b: n for b, n in zip(block.tolist(), nbytes.tolist(), strict=True) if n > 0}
        delta = [n if n > 0 else -sizes.get(b, 0) for b, n in zip(block.tolist(), nbytes.tolist(), strict=True)]
        device = int(np.cumsum(delta).max() * 64 * room) // (2 * MIB) * (2 * MIB)
        if how.get("graph"):
            os.environ["MEMFIT_CAPTURE"] = "1"
        found = snapshot(
            program, commands_of(block, nbytes, **how), settings, device, "scattered" if "-" in name else "rising"
        )
        os.environ.pop("MEMFIT_CAPTURE", None)
        with gzip.GzipFile(DATA / f"{name}.pickle.gz", "wb", mtime=0) as file:
            pickle.dump(found, file, protocol=4)
        trace = found["device_traces"][0]
        back = sum(entry["action"] in ("segment_free", "segment_unmap") for entry in trace)
        print(f"{name}: {len(trace)} entries, {len(found['segments'])} segments at the end, {back} given back before")


if __name__ == "__main__":
    main()
