"""What the system says of its memory hierarchy: Linux's sysfs first, then the C library's sysconf, else nothing.

Every answer may be missing (containers without /sys, other systems); callers then measure, or say so.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memfit.units import SizeError, parse_bytes

SYSFS = Path("/sys/devices/system")


@dataclass(frozen=True)
class SystemCache:
    """A data or unified cache of the first processor. ``shared``: processors that it serves; ``ways`` None: not told."""

    name: str
    bytes: int
    ways: int | None
    line: int
    shared: int


def system_caches(root: Path = SYSFS) -> tuple[SystemCache, ...]:
    """The caches of the first processor, from it outwards; empty where the system does not tell."""
    found = []
    for index in sorted((root / "cpu" / "cpu0" / "cache").glob("index*")):
        try:
            if _text(index / "type") not in ("Data", "Unified"):
                continue
            size = parse_bytes(re.sub(r"^(\d+)K$", r"\1KiB", re.sub(r"^(\d+)M$", r"\1MiB", _text(index / "size"))))
            ways, line = (
                int(_text(index / "ways_of_associativity") or 0),
                int(_text(index / "coherency_line_size") or 64),
            )
            found.append(
                SystemCache(
                    f"L{int(_text(index / 'level'))}",
                    size,
                    ways or None,
                    line,
                    _listed(_text(index / "shared_cpu_list")),
                )
            )
        except (OSError, ValueError, SizeError):
            continue
    return tuple(sorted(found, key=lambda cache: cache.name)) or (_from_sysconf() if root == SYSFS else ())


def _from_sysconf() -> tuple[SystemCache, ...]:
    found = []
    for name in ("1_D", "2_", "3_"):
        numbers = []
        for what in ("CACHE_SIZE", "CACHE_ASSOC", "CACHE_LINESIZE"):
            key = f"SC_LEVEL{name.rstrip('_') if name == '1_D' else name[:-1]}_{what}".replace("1_D_", "1_D")
            try:
                numbers.append(os.sysconf(key))
            except (ValueError, OSError):
                numbers.append(0)
        size, ways, line = numbers
        if size > 0:
            found.append(SystemCache(f"L{name[0]}", size, ways if ways > 0 else None, line if line > 0 else 64, 1))
    return tuple(found)


def _listed(text: str) -> int:
    total = 0
    for part in text.split(","):
        low, _, high = part.partition("-")
        if low.strip():
            total += int(high or low) - int(low) + 1
    return max(total, 1)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def cpu_name() -> str:
    """What the processor calls itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def processors_here() -> int:
    """Processors that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def page_sizes() -> tuple[int, int | None, str]:
    """Bytes of a page, of a transparent huge page (None: none), and when the system hands them out."""
    huge = _text(Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"))
    policy = re.search(r"\[(\w+)\]", _text(Path("/sys/kernel/mm/transparent_hugepage/enabled")))
    return os.sysconf("SC_PAGE_SIZE"), int(huge) if huge.isdecimal() else None, policy.group(1) if policy else ""


def numa_nodes(root: Path = SYSFS) -> tuple[Mapping[str, Any], ...]:
    """Nodes with their processors, bytes and distances to all nodes; one of everything where the system does not tell."""
    nodes = []
    for path in sorted((root / "node").glob("node[0-9]*"), key=lambda p: int(p.name[4:])):
        total = re.search(r"MemTotal:\s+(\d+) kB", _text(path / "meminfo"))
        nodes.append(
            {
                "node": int(path.name[4:]), "processors": _listed(_text(path / "cpulist")),
                "bytes": int(total.group(1)) * 1024 if total else 0,
                "distances": [int(part) for part in _text(path / "distance").split()],
            }
        )  # fmt: skip
    return tuple(nodes)
