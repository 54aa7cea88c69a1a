"""``Machine``: the memory hierarchy that a program runs on, as other commands use it: measured, told by the system, or by name.

``load_machine`` takes a file of ``memfit machine --json``, the name of a ready description (``hierarchies.toml``), or nothing:
then what the system says of itself, without measuring (about 1 ms).
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from memfit.errors import MachineError
from memfit.machine.cache import CacheLevel, Hierarchy
from memfit.machine.system import SystemCache, cpu_name, numa_nodes, page_sizes, processors_here, system_caches
from memfit.units import SizeError, parse_bytes

TYPICAL_WAYS = 8
"""Ways of a cache that nobody names."""


@dataclass(frozen=True)
class MemoryLevel:
    """One level as a program meets it. Bytes, nanoseconds, bytes per second; None: not known.

    Attributes:
        bytes: what it holds: the system's word unless the measured figure is off by more than a factor of 2.
        latency_ns: of one dependent load.
        bandwidth: bytes per second that one core reads.
        measured_bytes: (low, high) where the measured edge lies; of a cache that is shared, the share seen here.
        shared: by how many processors, by the system's word.
        agrees: whether the measured edge agrees with the system's word; None: not compared.
    """

    name: str
    bytes: int
    ways: int | None
    line: int = 64
    latency_ns: float | None = None
    bandwidth: float | None = None
    copy_bandwidth: float | None = None
    write_bandwidth: float | None = None
    measured_bytes: tuple[int, int] | None = None
    shared: int = 1
    agrees: bool | None = None


@dataclass(frozen=True)
class TlbLevel:
    """A level of address translation: pages of one size that it holds (measured), and what a miss of it costs."""

    name: str
    entries: int
    page: int
    miss_ns: float


@dataclass(frozen=True)
class Machine:
    """A memory hierarchy.

    Attributes:
        levels: caches from the processor outwards, then memory (name "memory").
        source: "measured", "system", a file, or the name of a ready description.
        flops: float32 operations a second of one core, measured; None: not measured.
        curve: (working set in bytes, nanoseconds a load) where measured.
        notes: disagreements and doubts, in sentences.
    """

    name: str
    levels: tuple[MemoryLevel, ...]
    source: str
    page_bytes: int = 4096
    huge_page_bytes: int | None = None
    huge_pages: str = ""
    numa: tuple[Mapping[str, Any], ...] = ()
    tlb: tuple[TlbLevel, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()
    flops: float | None = None
    processors: int = 1
    seconds: float = 0.0
    touch_ns: float | None = None
    huge_touch_ns: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def caches(self) -> tuple[MemoryLevel, ...]:
        """The levels but memory."""
        return tuple(level for level in self.levels if level.name != "memory")

    @property
    def memory(self) -> MemoryLevel | None:
        """What lies behind the caches."""
        return next((level for level in self.levels if level.name == "memory"), None)

    def hierarchy(self) -> Hierarchy:
        """The caches as the simulators take them: LRU, nominal sizes.

        Raises:
            MachineError: no caches, or ways that nobody knows.
        """
        if not self.caches:
            raise MachineError(self.name, "no caches are known", "name a ready machine, or run memfit machine --json")
        return Hierarchy(tuple(CacheLevel(c.name, c.bytes, c.ways or TYPICAL_WAYS, c.line) for c in self.caches))

    def to_json(self) -> dict[str, Any]:
        """Plain data that ``machine_from_json`` reads back."""
        return asdict(self)


def machine_from_json(data: Mapping[str, Any], where: str) -> Machine:
    """The machine that ``Machine.to_json`` wrote.

    Raises:
        MachineError: ``data`` is not that.
    """
    try:
        rows = data["levels"]
        levels = tuple(
            MemoryLevel(
                str(row["name"]), _bytes(row["bytes"]), None if row.get("ways") is None else int(row["ways"]),
                int(row.get("line", 64)), _number(row.get("latency_ns")), _number(row.get("bandwidth")),
                _number(row.get("copy_bandwidth")), _number(row.get("write_bandwidth")),
                tuple(row["measured_bytes"]) if row.get("measured_bytes") else None, int(row.get("shared", 1)),
                row.get("agrees"),
            )
            for row in rows
        )  # fmt: skip
        for level in levels:
            if level.name != "memory":
                CacheLevel(level.name, level.bytes, level.ways or TYPICAL_WAYS, level.line)
        return Machine(
            str(data.get("name", where)), levels, str(data.get("source", where)), int(data.get("page_bytes", 4096)),
            data.get("huge_page_bytes"), str(data.get("huge_pages", "")), tuple(data.get("numa", ())),
            tuple(TlbLevel(**row) for row in data.get("tlb", ())), tuple((int(a), float(b)) for a, b in data.get("curve", ())),
            _number(data.get("flops")), int(data.get("processors", 1)),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, SizeError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise MachineError(
            where, f"it is no description of a machine: {why}", "write one with memfit machine --json"
        ) from error


def ready_machines() -> dict[str, Machine]:
    """The descriptions that memfit ships, by name: published sizes; latency and bandwidth are typical, not measured here."""
    table = tomllib.loads(resources.files("memfit.machine").joinpath("hierarchies.toml").read_text())
    return {name: replace(machine_from_json({"name": name, **row}, name), source=name) for name, row in table.items()}


def load_machine(name: str | None = None) -> Machine:
    """A machine by file or name; None: this one, by the system's word.

    Raises:
        MachineError: no such file or name, a damaged file, or a system that says nothing of its caches.
    """
    if name is None:
        return system_machine()
    if name.endswith(".json") or Path(name).is_file():
        try:
            data = json.loads(Path(name).read_text())
        except (OSError, ValueError) as error:
            raise MachineError(name, f"it cannot be read: {error}", "write one with memfit machine --json") from error
        if not isinstance(data, dict):
            raise MachineError(name, "it holds no object", "write one with memfit machine --json")
        return machine_from_json(data, name)
    ready = ready_machines()
    if name in ready:
        return ready[name]
    near = difflib.get_close_matches(name, ready, n=3, cutoff=0.4)
    raise MachineError(
        name, "there is no ready description of it", f"there are {', '.join(near or ready)}, or a .json file"
    )


def system_machine(caches: tuple[SystemCache, ...] | None = None) -> Machine:
    """This machine by the system's word alone.

    Raises:
        MachineError: the system says nothing of its caches.
    """
    found = system_caches() if caches is None else caches
    if not found:
        raise MachineError(
            "this machine",
            "the system says nothing of its caches",
            "measure it (memfit machine --json > here.json) and give --machine here.json, or name levels: --cache 32KiB/8",
        )
    notes: list[str] = []
    levels = [MemoryLevel(c.name, c.bytes, _whole_ways(c, notes), c.line, shared=c.shared) for c in found]
    page, huge, policy = page_sizes()
    whole = (*levels, MemoryLevel("memory", 0, None))
    return Machine(
        cpu_name(), whole, "system", page, huge, policy, numa_nodes(), processors=processors_here(), notes=tuple(notes)
    )


def _whole_ways(cache: SystemCache, notes: list[str]) -> int | None:
    """The ways that the system names, or the most below them that divide the cache: some hosts name what cannot be."""
    lines = cache.bytes // cache.line
    if not cache.ways or lines % cache.ways == 0:
        return cache.ways
    ways = next(n for n in range(min(cache.ways, lines), 0, -1) if lines % n == 0)
    notes.append(
        f"the system says {cache.name} has {cache.bytes} bytes and {cache.ways} ways of {cache.line}-byte lines, which no "
        f"cache can have: taken as {ways} ways"
    )
    return ways


def _bytes(value: Any) -> int:
    return parse_bytes(value) if isinstance(value, str) else int(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
