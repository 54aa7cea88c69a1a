"""A forked worker process of a watched script watches itself: which line makes what grows in it, and under which name it is.

The parent sees only how much a worker holds. In the worker a thread reads the levels, a few times a second; once they have
grown for long enough, ``tracemalloc`` is on for a moment. The lines whose blocks come to more at its end than in its middle
are those that make what stays. Objects that are there already are not walked: to look at one is to write its page, which is
shared with the parent until then; only the program's own names are (``named_sizes``). The account lies beside the parent's,
which reads it when it judges (``account_of``). Cost: 50 us a reading; once, 1.5 to 3 times the time of at most ``_TRACED``
seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path

from memfit.api.leak_probes import probes_now
from memfit.files import write_atomically
from memfit.ir.leak import WorkerAccount
from memfit.machine.own_code import is_users_file, place
from memfit.observe.leak_census import named_sizes
from memfit.observe.leak_curve import slope_of
from memfit.observe.leak_meter import Meter
from memfit.observe.retention import program_roots

_LEAST, _MOST = 0.02, 0.25
"""Seconds between two readings: short at first, for workers that live for seconds."""
_SHARE = 1 / 50
_READINGS = 16
_MOST_READINGS = 400
_FLOOR = 16 << 10
"""Bytes a reading below which nothing is traced."""
_FRAMES = 12
_TRACED = 2.0
_TURNS = 8
"""Readings for which births are noted."""


def _path(result: str | Path, pid: int) -> Path:
    return Path(f"{result}.worker-{pid}")


def account_of(result: str | Path, pid: int) -> WorkerAccount | None:
    """What a worker found in itself; None where it found nothing by now."""
    try:
        found = json.loads(_path(result, pid).read_text(encoding="utf-8"))
        return WorkerAccount(str(found["birth"]), str(found["holder"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def start(result: str | Path) -> None:
    """Watch this process, a worker, until it ends."""
    with contextlib.suppress(RuntimeError):  # no thread can be started
        threading.Thread(target=_watch, args=(str(result), os.getpid()), name="memfit-worker", daemon=True).start()


def _watch(result: str, pid: int) -> None:
    with contextlib.suppress(Exception):  # the worker must not notice a fault of its watching
        began = time.monotonic()
        if _grows(began, pid) and not tracemalloc.is_tracing():
            birth, holder = _traced(began, pid)
            if birth or holder:
                write_atomically(_path(result, pid), json.dumps({"birth": birth, "holder": holder}))


def _pause(began: float, pid: int) -> bool:
    time.sleep(min(_MOST, max(_LEAST, _SHARE * (time.monotonic() - began))))
    return os.getpid() == pid


def _grows(began: float, pid: int) -> bool:
    """Wait until what this process holds has grown for long enough; False where it was forked from meanwhile."""
    meter, levels, number, every = Meter(), [], 0, 1
    while _pause(began, pid):
        number += 1
        if number % every:
            continue
        levels.append((number, float(meter.read().held)))
        if len(levels) >= _MOST_READINGS:
            levels, every = levels[::2], 2 * every
        if len(levels) >= _READINGS and len(levels) % 4 == 0:
            recent = levels[-3 * _READINGS :]
            if slope_of([at for at, _ in recent], [held for _, held in recent], _FLOOR).growing:
                meter.close()
                return True
    return False


def _traced(began: float, pid: int) -> tuple[str, str]:
    """The line that makes what stays, and the name under which most is added."""
    sizes = [_sizes()]
    tracemalloc.start(_FRAMES)
    try:
        lines: list[Counter[str]] = []
        for _ in range(2):
            until = time.monotonic() + _TRACED / 2
            for _ in range(_TURNS // 2):
                if not _pause(began, pid) or time.monotonic() > until:
                    break
            lines.append(_lines())
            sizes.append(_sizes())
    finally:
        tracemalloc.stop()
    lines[1].subtract(lines[0])
    birth = next((line for line, nbytes in lines[1].most_common(1) if nbytes > 0), "")
    gained = {
        name: size - sizes[0][name]
        for name, size in sizes[2].items()
        if name in sizes[0] and sizes[0][name] < sizes[1].get(name, 0) < size
    }
    return birth, max(gained, key=lambda name: gained[name], default="")


def _lines() -> Counter[str]:
    """Bytes that live now by the user's innermost line of those that made them."""
    found: Counter[str] = Counter()
    for trace in tracemalloc.take_snapshot().traces:
        for frame in reversed(trace.traceback):
            if is_users_file(frame.filename):
                found[place(frame.filename, frame.lineno)] += trace.size
                break
    return found


def _sizes() -> dict[str, int]:
    names = ((root.name, root.value) for root in program_roots() if not callable(root.value) or root.rank == 0)
    return named_sizes(names, probes_now().size)
