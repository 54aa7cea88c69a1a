"""Service mode: a long-running process that watches itself, and how another process asks it.

``serve`` starts one thread that samples once a second, looks seldom (1 % of the time, the first look included), and answers
on a socket of the user alone. The history is bounded: old samples are thinned. When what the process holds has grown for
long enough a warning is logged once, and ``on_leak`` is called. ``ask`` connects, lets the process judge itself now, and reads
the verdict as JSON; nothing but text is exchanged, and no code of the asked process's choosing runs in the asking one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from memfit.api.leak_hunt import Hunt
from memfit.errors import ServiceError
from memfit.ir.leak import LeakReport
from memfit.observe.leak_sources import process_slope

_LOOK_SHARE = 0.01
_TRACED = 0.25
"""Seconds for which births are noted, once, when growth is first seen."""
_ASK_SECONDS = 60.0
_LARGEST_ANSWER = 16 << 20
_log = logging.getLogger("memfit")


class Service:
    """A process that watches itself, until ``stop``."""

    def __init__(self, seconds: float, on_leak: Callable[[LeakReport], None] | None) -> None:
        self.hunt = Hunt(f"process {os.getpid()}", share=_LOOK_SHARE, patient=True)
        self.path = socket_path(os.getpid())
        self._seconds, self._on_leak = seconds, on_leak
        self._alerted = False
        self._stop = threading.Event()
        self._judging = threading.Lock()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self.path))
        self.path.chmod(0o600)
        self._socket.listen(4)
        self._threads = [
            threading.Thread(target=target, name=f"memfit-{target.__name__.strip('_')}", daemon=True)
            for target in (self._sample, self._answer)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the watching; the socket goes."""
        self._stop.set()
        self.hunt.watcher.close()
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def report(self) -> LeakReport:
        """Judge now."""
        with self._judging:
            self.hunt.judge(final=False)
            return self.hunt.report()

    def _sample(self) -> None:
        name = f"every {self._seconds:g} s"
        checked = time.monotonic()
        while not self._stop.wait(self._seconds):
            if os.getpid() != self.hunt.pid:
                return
            with self._judging:
                self.hunt.watcher.turn("time", name, "time")
            while self.hunt.watcher.tracing and not self._stop.wait(min(self._seconds, _TRACED)):
                with self._judging:
                    self.hunt.watcher.hurry()
            if not self._alerted and time.monotonic() - checked >= 10 * self._seconds:
                checked = time.monotonic()
                self._alert()

    def _alert(self) -> None:
        leader = self.hunt.watcher.leader()
        if leader is None or leader.count < 30 or not process_slope(leader).growing:
            return
        report = self.report()
        if report.leaking:
            self._alerted = True
            first = report.findings[0]
            _log.warning(
                "memory leaks: %s keeps %d bytes more every %g s; fix: %s (memfit leaks --pid %d tells more)",
                first.holder, first.bytes_per_step, self._seconds, first.fix, os.getpid(),
            )  # fmt: skip
            if self._on_leak is not None:
                self._on_leak(report)

    def _answer(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_ASK_SECONDS)
                connection.sendall(json.dumps(self.report().to_json()).encode())


def serve(*, seconds: float = 1.0, on_leak: Callable[[LeakReport], None] | None = None) -> Service:
    """Watch this process from a thread until it ends; ``memfit leaks --pid N`` reads it.

    Args:
        seconds: between samples, at least 0.05.
        on_leak: called once, in that thread, when a leak has been found.

    Raises:
        ServiceError: the socket cannot be made.

    Cost: at most 2 % of the time, beside a few seconds once when growth is first seen.
    """
    if seconds < 0.05:
        raise ServiceError(os.getpid(), f"samples every {seconds} s cost too much", "0.05 s is the least")
    try:
        return Service(seconds, on_leak)
    except OSError as error:
        raise ServiceError(
            os.getpid(), f"its socket cannot be made ({error})", "see that /tmp can be written"
        ) from error


def socket_path(pid: int) -> Path:
    """Where a process answers: in a folder that belongs to the user alone.

    Raises:
        ServiceError: the folder belongs to somebody else.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"memfit-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != user) or found.st_mode & 0o077:
        raise ServiceError(pid, f"the folder {folder} is not this user's alone", "remove it")
    return folder / f"{pid}.sock"


def ask(pid: int) -> LeakReport:
    """The verdict of a running process that called ``memfit.watch.serve()``; it judges itself now.

    Raises:
        ServiceError: there is no such process, it does not watch itself, or its answer is none.
    """
    if not os.path.exists(f"/proc/{pid}") and os.path.exists("/proc/self"):
        raise ServiceError(pid, "there is no such process", "see ps")
    path = socket_path(pid)
    parts: list[bytes] = []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_ASK_SECONDS)
            connection.connect(str(path))
            while (part := connection.recv(1 << 16)) and sum(map(len, parts)) < _LARGEST_ANSWER:
                parts.append(part)
    except OSError as error:
        raise ServiceError(
            pid, f"it does not answer ({error.strerror or error})", "call memfit.watch.serve() in it, as the same user"
        ) from error
    try:
        return LeakReport.from_json(json.loads(b"".join(parts)))
    except (ValueError, KeyError, TypeError) as error:
        raise ServiceError(pid, "its answer is no verdict", "use the same version of memfit in both") from error
