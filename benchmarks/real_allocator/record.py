"""Snapshots by torch's released allocator, without a GPU: its own binary over a driver that only counts.

    python benchmarks/real_allocator/record.py --torch UNPACKED --cuda CUDA [--build FOLDER]

``UNPACKED`` holds ``torch/lib`` and ``torch/include`` of a CUDA wheel, ``CUDA`` the toolkit's headers. ``driver.cc`` stands
in for the CUDA runtime, ``program.cc`` drives ``libc10_cuda`` by commands; the snapshots are what that library reports.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


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
