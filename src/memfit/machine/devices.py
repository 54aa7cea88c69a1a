"""Devices by name: this machine's CPU, or a GPU that need not be here, from a table that users extend.

The table is ``devices.toml`` beside this file; the file named by ``MEMFIT_DEVICES``, else
``~/.config/memfit/devices.toml`` (TOML, or JSON of the same structure), adds to it and wins over it.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from memfit.errors import DeviceError
from memfit.units import SizeError, parse_bytes


@dataclass(frozen=True)
class Device:
    """A device that a program may have to fit. Bytes throughout.

    ``memory``: what a process may use in all. ``context``: (low, expected, high) that driver and libraries take outside
    the framework's allocator. ``workspace``: what they take once through it. ``transfer``: bytes per second to or from
    page-locked host memory, 0 where unknown.
    """

    name: str
    kind: str
    memory: int
    context: tuple[int, int, int] = (0, 0, 0)
    workspace: int = 0
    vendor: str = ""
    aliases: tuple[str, ...] = ()
    transfer: int = 0

    @property
    def room(self) -> int:
        """Bytes left for a program's tensors: ``memory`` without what driver and libraries take."""
        return max(0, self.memory - self.context[1] - self.workspace)


def find_device(name: str) -> Device:
    """The device called ``name``: "cpu", or a name or alias of the table; case, blanks and hyphens do not matter.

    Raises:
        DeviceError: no such device, or a damaged table.
    """
    wanted = _plain(name)
    if wanted == "cpu":
        return Device("cpu", "cpu", available_memory())
    table = devices()
    names: dict[str, Device] = {}
    for device in table:
        for text in (*device.aliases, device.name):
            names.setdefault(_plain(text), device)
    for device in reversed(table):
        names[_plain(device.name)] = device
    if wanted in names:
        return names[wanted]
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    known = ", ".join(dict.fromkeys(names[text].name for text in near)) if near else ", ".join(d.name for d in table)
    raise DeviceError(
        name, f"not in the table; {'did you mean' if near else 'known'}: cpu, {known}; add it to {user_table()}"
    )


def devices() -> tuple[Device, ...]:
    """All devices of the table, the user's first.

    Raises:
        DeviceError: a table is damaged.
    """
    shipped = tomllib.loads(resources.files("memfit.machine").joinpath("devices.toml").read_text())
    path = user_table()
    own = _read(path) if path.is_file() else {}
    defaults = {**shipped["defaults"], **own.get("defaults", {})}
    rows = {name: (row, str(path)) for name, row in own.get("device", {}).items()}
    for name, row in shipped["device"].items():
        rows.setdefault(name, (row, "devices.toml"))
    return tuple(_device(name, row, defaults, where) for name, (row, where) in rows.items())


def user_table() -> Path:
    """Where the user's own table is, or would be."""
    named = os.environ.get("MEMFIT_DEVICES")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "memfit" / "devices.toml"


def available_memory() -> int:
    """Bytes that a new process can use here without swapping, within the limit of its cgroup."""
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        if match:
            available = int(match.group(1)) * 1024
    except OSError:
        pass
    for limit, usage in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            available = min(available, max(0, int(Path(limit).read_text()) - int(Path(usage).read_text())))
        except (OSError, ValueError):
            continue
    return available


def _read(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text()
        value = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise DeviceError(str(path), f"the device table cannot be read: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get("device", {}), dict):
        raise DeviceError(str(path), 'the device table has no [device."Name"] sections')
    return value


def _device(name: str, row: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> Device:
    try:
        vendor = str(row.get("vendor", ""))
        base = defaults.get(vendor, {})
        context = row.get("context", base.get("context", (0, 0, 0)))
        low, expected, high = (0 if size == 0 else parse_bytes(size) for size in context)
        workspace = row.get("workspace", base.get("workspace", 0))
        transfer = row.get("transfer", base.get("transfer", 0))
        return Device(
            name, "gpu", parse_bytes(row["memory"]), (low, expected, high),
            0 if workspace == 0 else parse_bytes(workspace), vendor,
            tuple(str(alias) for alias in row.get("aliases", ())),
            0 if transfer == 0 else parse_bytes(transfer),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, SizeError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DeviceError(
            name, f"its entry in {where} is damaged: {why}; it needs at least memory = '24 GiB'"
        ) from error


def _plain(text: str) -> str:
    text = re.sub(r"(?<=[0-9])gi?b$", "g", re.sub(r"[^a-z0-9]", "", text.lower()))  # 80g, 80GB and 80 GiB
    return re.sub(r"^(nvidia|amd)", "", text)
