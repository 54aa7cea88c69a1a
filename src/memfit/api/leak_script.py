"""Run a script as ``python script.py`` would, watched; writes what was found to a file, also while it runs.

This is the child process of ``memfit leaks``: whatever the script does to its process (``os._exit``, a crash of native
code, running out of memory), the last account written stays for the parent to judge by.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from memfit.api import worker_watch
from memfit.api.leak_hunt import LEAST_JUDGED, Hunt
from memfit.files import write_atomically
from memfit.ir.leak import LeakReport
from memfit.observe.leak_history import History
from memfit.observe.leak_loops import END, TURN, Loop, MarkingFinder, marked_code
from memfit.observe.watcher import Watcher

TIME_STEP = 0.25


def history_beside(result: str | Path) -> Path:
    """Where the levels of a program are written, whose account goes to ``result``."""
    return Path(f"{result}.levels")


class ScriptWatch:
    """The watching of one script. What it does before its end is written to ``result``."""

    def __init__(self, result: str, target: str) -> None:
        self.result = result
        self.hunt = Hunt(target)
        self.hunt.after = self.watcher.on_look = self.checkpoint
        self.watcher.on_sample = History(history_beside(result)).add
        self.watcher.account_of = partial(worker_watch.account_of, result)
        self.loops: list[Loop] = []
        self.done = False
        self._stop = threading.Event()

    @property
    def watcher(self) -> Watcher:
        """The hunt's."""
        return self.hunt.watcher

    def turn_loop(self, number: int) -> None:
        """A loop of the program turns."""
        source = self.watcher.sources.get(number)
        if source is None:
            loop = self.loops[number]
            self.watcher.turn(number, loop.name, "loop", loop.depth)
            return
        self.watcher.turn_of(source)
        if self.watcher.judge_due:
            self._judge_on_the_way()

    def _judge_on_the_way(self) -> None:
        self.watcher.judge_due = False
        if not self.done and self.watcher.active:
            self.hunt.judge_on_the_way()

    def end_loop(self, number: int) -> None:
        """An outermost loop of a function has ended; its variables are still there."""
        if self.done or os.getpid() != self.hunt.pid or not (self.watcher.active or self.watcher.faults):
            return
        source = self.watcher.sources.get(number)
        leader = self.watcher.leader()
        if source is None or leader is None:
            return
        source.ends += 1
        count = leader.count
        if (
            count < LEAST_JUDGED
            or source.ends > max(1, count // 4)
            or count < 1.5 * self.watcher.judged_at.get(leader.name, 0)
        ):
            return
        elapsed = time.perf_counter() - self.hunt.began
        if self.hunt.judging <= max(6.0, 0.05 * elapsed):
            self.hunt.judge()

    def turn(self, key: str, name: str, kind: str) -> None:
        """Something that a framework repeats."""
        self.watcher.turn(key, name, kind)
        if self.watcher.judge_due:
            self._judge_on_the_way()

    def checkpoint(self) -> None:
        """Write the account as it stands."""
        if os.getpid() == self.hunt.pid:
            with contextlib.suppress(Exception):
                write_atomically(self.result, json.dumps(self.hunt.report().to_json()))

    def finish(self) -> None:
        """The script has ended: judge what was not judged yet, and write."""
        if self.done or os.getpid() != self.hunt.pid:
            return
        self.done = True
        self._stop.set()
        self.hunt.judge_if_new()
        self.watcher.close()
        self.checkpoint()

    def tick(self) -> None:
        """Time as the step of last resort, in a thread of its own; it stands still while modules are imported."""
        main = threading.main_thread().ident or 0
        while not self._stop.wait(TIME_STEP):
            if os.getpid() == self.hunt.pid and self.watcher.active and not _importing(main):
                self.watcher.turn("time", f"every {TIME_STEP:g} s", "time")


def _importing(thread: int) -> bool:
    """Whether a thread is inside of an import now."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


_watch: ScriptWatch | None = None


def turn_loop(number: int) -> None:
    """Called at the top of every marked loop's body."""
    if _watch is not None:
        _watch.turn_loop(number)


def end_loop(number: int) -> None:
    """Called when a marked outermost loop has ended."""
    if _watch is not None:
        _watch.end_loop(number)


def run(result: str, script: str, arguments: list[str]) -> int:
    """Run and watch; returns the exit status that the script would have had."""
    global _watch
    path = os.path.abspath(script)
    folder = os.path.dirname(path)
    watch = _watch = ScriptWatch(result, script)
    vars(builtins)[TURN], vars(builtins)[END] = turn_loop, end_loop
    sys.meta_path.insert(0, MarkingFinder(folder, watch.loops, _after_imports(watch)))
    sys.argv = [script, *arguments]
    sys.path[0] = folder
    module = ModuleType("__main__")
    vars(module).update(__file__=script, __builtins__=builtins)
    sys.modules["__main__"] = module
    os.register_at_fork(after_in_child=_leave_child)
    plain_exit = os._exit

    def leave(status: int) -> None:
        if _watch is not None and os.getpid() == _watch.hunt.pid:
            _watch.hunt.ended = f"os._exit({status})"
            with contextlib.suppress(BaseException):
                _watch.finish()
        plain_exit(status)

    os._exit = leave  # type: ignore[assignment]
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=watch.tick, name="memfit-time", daemon=True).start()
    status = 0
    try:
        code = marked_code(Path(path).read_bytes(), path, watch.loops)
        exec(code, vars(module))
        for thread in threading.enumerate():
            if not thread.daemon and thread is not threading.current_thread():
                thread.join()
    except SystemExit as request:
        status = request.code if isinstance(request.code, int) else 0 if request.code is None else 1
        watch.hunt.ended = f"exit status {status}" if status else ""
        if isinstance(request.code, str):
            print(request.code, file=sys.stderr)
    except KeyboardInterrupt:
        status, watch.hunt.ended = 130, "interrupted"
    except SyntaxError as error:
        status, watch.hunt.ended = 1, f"SyntaxError: {error}"
        traceback.print_exc(limit=0)
    except BaseException as error:
        status, watch.hunt.ended = 1, f"{type(error).__name__}: {error}"[:300]
        _print_traceback(error)
    watch.finish()
    return status


def _print_traceback(error: BaseException) -> None:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__") == __name__:
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _leave_child() -> None:
    """In a forked child the script is not watched; the child watches what it holds itself."""
    global _watch
    if _watch is not None:
        _watch.watcher.leave_child()
        worker_watch.start(_watch.result)
    _watch = None


def _after_imports(watch: ScriptWatch) -> dict[str, Any]:
    def torch_came(module: ModuleType) -> None:
        from memfit.frameworks.torch import leak_steps

        leak_steps.attach(watch.turn)

    def compiler_came(module: ModuleType) -> None:
        from memfit.frameworks.torch import leak_steps

        leak_steps.let_compiler_ignore((turn_loop, end_loop))(module)

    return {"torch": torch_came, "torch._dynamo.config": compiler_came}


def with_end(report: LeakReport, status: int) -> LeakReport:
    """The account of a child that did not come to its own end, with what ended it."""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = str(-status)
        return replace(report, ended=f"killed by {name}")
    return report


if __name__ == "__main__":
    from memfit.api import leak_script

    sys.exit(leak_script.run(sys.argv[1], sys.argv[2], sys.argv[3:]))
