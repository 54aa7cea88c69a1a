"""Resident memory of this process: how much, its peak, and in which named bands its growth lies.

Linux tells the resident size and its peak (``VmRSS``, ``VmHWM`` of ``/proc/self/status``) and lets the peak start anew
(``5`` into ``/proc/self/clear_refs``); elsewhere only the peak since the process began is known. Growth over the
start::

    allocator_live   blocks of the framework's allocator, alive at the fullest moment
    retained         freed, and kept by malloc for later (glibc gives back only the end of its heap, and large blocks)
    code             pages of libraries and other files that were touched first during the run
    recorder         what memfit's own recording holds
    other_malloc     everything else that malloc handed out: Python objects over 512 bytes, the libraries' own
    other_mappings   anonymous memory beside malloc: Python's small objects, thread stacks, generated code
    not_yet_written  negative: of the above, asked for and not yet written, so not resident
    unexplained      what the bands leave: from the fullest moment looked at to the true peak
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Resident:
    """Bytes of this process: ``now``, ``peak`` since the last reset, of now ``shared`` (backed by files)."""

    now: int
    peak: int
    shared: int


def read_resident() -> Resident:
    """The resident size now. Cost: about 30 us on Linux."""
    try:
        rows = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        size = {name: int(rows[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM", "RssFile", "RssShmem")}
        return Resident(size["VmRSS"], size["VmHWM"], size["RssFile"] + size["RssShmem"])
    except (OSError, KeyError, ValueError):
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return Resident(peak, peak, 0)


def reset_resident_peak() -> bool:
    """Let the resident peak start anew from what is resident now; False where the system does not."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def bands(
    before: Mapping[str, int], fullest: Mapping[str, int], peak: int, recorder: int, *, alone: bool = True
) -> dict[str, int]:
    """The growth of the resident peak in the named bands of the module text; they sum to it.

    Args:
        before: ``live``, ``resident``, ``shared``, ``arena``, ``mapped``, ``used``, ``free`` bytes before the run.
        fullest: the same at the fullest moment that was looked at.
        peak: the resident peak of the run, bytes.
        recorder: bytes that the recording itself holds, at most.
        alone: whether the peak is of this run alone.
    """
    growth = {name: fullest[name] - before[name] for name in before}
    total = peak - before["resident"] if alone else max(peak - before["resident"], growth["resident"])
    anonymous = growth["resident"] - growth["shared"]
    retained = max(0, growth["free"])
    handed_out = growth["used"] + growth["mapped"]
    untouched = max(0, handed_out + retained - anonymous)  # asked for, and not yet written
    mappings = max(0, anonymous - handed_out - retained)
    recorder = max(0, min(recorder, handed_out - growth["live"]))
    other = handed_out - growth["live"] - recorder
    found = {
        "allocator_live": growth["live"], "retained": retained, "code": growth["shared"], "recorder": recorder,
        "other_malloc": max(0, other), "other_mappings": mappings,
        "not_yet_written": -(untouched + max(0, -other)) if other < 0 else -untouched,
    }  # fmt: skip
    found["unexplained"] = total - sum(found.values())
    return found
