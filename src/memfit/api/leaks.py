"""`leaks`: run a script watched, in a process of its own, and say what grows and who holds it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from memfit.api.leak_script import history_beside, with_end
from memfit.errors import TargetError
from memfit.ir.leak import LeakReport
from memfit.observe.leak_history import read_history
from memfit.observe.leak_sources import Source, leader_of, process_slope

_GRACE = 60.0


def leaks(script: str, arguments: Sequence[str] = (), *, timeout: float | None = None) -> LeakReport:
    """Run ``script`` to its end, watching what it holds from step to step; its output goes to standard error.

    Args:
        script: the path of a Python file, run as ``python script.py`` would run it.
        arguments: its own arguments.
        timeout: seconds after which it is asked to end (and judged), None to wait.

    Returns:
        The verdict: ``leaking`` is None where too few steps ran.

    Raises:
        TargetError: there is no such file, or it cannot be compiled.

    Cost: the script's own time, at most 5 % more, and up to some seconds for the verdict.
    """
    path = Path(script)
    if not path.is_file():
        raise TargetError(script, f"there is no file {script}", f"looked in {Path.cwd()}")
    try:
        compile(path.read_bytes(), script, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise TargetError(script, f"it is no Python program ({error})", f"see line {line}" if line else "") from error
    with tempfile.TemporaryDirectory(prefix="memfit-leaks-") as folder:
        result = Path(folder) / "found.json"
        began = time.monotonic()
        sys.stderr.flush()
        child = subprocess.Popen(
            [sys.executable, "-m", "memfit.api.leak_script", str(result), script, *arguments], stdout=_standard_error()
        )
        status = _wait(child, timeout)
        seconds = time.monotonic() - began
        try:
            report = LeakReport.from_json(json.loads(result.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            report = LeakReport(
                script, None, seconds=seconds, notes=("not enough steps: it ended before one was seen",)
            )
        report = with_end(report, status)
        if report.leaking is None and status < 0:
            report = _judged_by_levels(report, read_history(history_beside(result)))
        return report


def _wait(child: subprocess.Popen[bytes], timeout: float | None) -> int:
    """The exit status; an interruption is the child's to hear (it judges then), and it is waited for."""
    try:
        return child.wait(timeout)
    except subprocess.TimeoutExpired:
        child.terminate()
    except KeyboardInterrupt:
        pass
    try:
        return child.wait(_GRACE)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()
        return child.wait()


def _standard_error() -> int:
    try:
        return sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):
        return 2 if os.path.exists("/dev/fd/2") else subprocess.DEVNULL


def _judged_by_levels(report: LeakReport, sources: Sequence[Source]) -> LeakReport:
    """What the levels alone tell of a program that was killed before it could be judged."""
    source = leader_of(sources)
    if source is None:
        return report
    slope, samples = process_slope(source), source.samples
    curves = {
        name: list(zip(samples.step, column, strict=True))
        for name, column in (("heap", samples.heap), ("python", samples.python), ("resident", samples.resident))
        if any(column)
    }
    report = replace(report, steps=source.count, step_source=source.name, curves=curves)
    if slope.growing is None:
        return report
    notes = tuple(note for note in report.notes if "not enough steps" not in note)
    note = f"judged by what it held until it was {report.ended}; who holds it was not looked for any more"
    return replace(
        report, leaking=slope.growing, bytes_per_step=round(slope.slope), interval=(round(slope.low), round(slope.high)),
        notes=(*notes, note),
    )  # fmt: skip
