"""A forked worker process of a watched script watches itself: who holds what grows in it, and which line made that.

The parent sees only how much a worker holds. In the worker a thread reads the levels, a few times a second. Nothing is looked
at before what the worker holds has grown for long enough: to look at an object is to write its page, which is shared with the
parent until then. The account lies beside the parent's, which reads it when it judges (``account_of``). Cost: 50 us a
reading, at most 2 % of the time for looks, and one judgement, where the worker grows.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from pathlib import Path

from memfit.api.leak_hunt import Hunt
from memfit.files import write_atomically
from memfit.ir.leak import LeakReport
from memfit.observe.leak_curve import slope_of
from memfit.observe.leak_meter import Meter
from memfit.observe.leak_sources import FLOOR

_LEAST, _MOST = 0.02, 0.25
"""Seconds between two readings: short at first, for workers that live for seconds."""
_SHARE = 1 / 50
_READINGS = 16
_MOST_READINGS = 400
_TRACED = 0.1
_JUDGED_AT = 24
"""Readings of the hunt at which it judges."""
_JUDGEMENTS = 3


def _account(result: str | Path, pid: int) -> Path:
    return Path(f"{result}.worker-{pid}")


def account_of(result: str | Path, pid: int) -> LeakReport | None:
    """What a worker found in itself; None where it found nothing by now."""
    try:
        report = LeakReport.from_json(json.loads(_account(result, pid).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return report if report.findings else None


def start(result: str | Path) -> None:
    """Watch this process, a worker, until it ends."""
    with contextlib.suppress(RuntimeError):  # no thread can be started
        threading.Thread(target=_watch, args=(str(result), os.getpid()), name="memfit-worker", daemon=True).start()


def _pause(began: float, pid: int) -> bool:
    time.sleep(min(_MOST, max(_LEAST, _SHARE * (time.monotonic() - began))))
    return os.getpid() == pid


def _watch(result: str, pid: int) -> None:
    with contextlib.suppress(Exception):  # the worker must not notice a fault of its watching
        began = time.monotonic()
        if _grows(began, pid):
            _hunt(result, began, pid)


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
            if slope_of([at for at, _ in recent], [held for _, held in recent], FLOOR).growing:
                meter.close()
                return True
    return False


def _hunt(result: str, began: float, pid: int) -> None:
    hunt, judged, due = Hunt(f"worker process {pid}"), 0, _JUDGED_AT
    while _pause(began, pid) and judged < _JUDGEMENTS and hunt.watcher.active:
        hunt.watcher.turn("time", "readings", "time")
        while hunt.watcher.tracing:
            time.sleep(_TRACED)
            hunt.watcher.hurry()
        leader = hunt.watcher.leader()
        if leader is not None and leader.count >= due:
            judged, due = judged + 1, 4 * due
            hunt.judge(final=False)
            report = hunt.report()
            if report.findings:
                write_atomically(_account(result, pid), json.dumps(report.to_json()))
    hunt.watcher.close()
