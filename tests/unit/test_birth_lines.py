"""Which line made what an object keeps alive: the heaviest part decides, not the object that was added."""

from __future__ import annotations

import inspect
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from memfit.api import worker_watch
from memfit.observe.birth_lines import BirthLines
from memfit.observe.probes import ArrayProbe, Probes, PythonProbe

PYTHON = Probes([ArrayProbe(), PythonProbe()])
NONE = np.empty(0, np.int64)


class Channel:
    def __init__(self):
        self.buffer = bytearray(50_000)  # heavy: channel


def channel():
    return Channel()


def view():
    rows = np.zeros(20_000)  # heavy: view
    return rows[:4]


def record():
    text = "x" * 30_000 + str(time.time())  # heavy: record
    return {"text": (text, [text])}


def failure():
    payload = bytearray(40_000)  # heavy: failure
    try:
        raise ValueError(len(payload))
    except ValueError as error:
        return error


def heavy_line(name):
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, text in enumerate(lines, 1) if text.endswith(f"# heavy: {name}"))


@pytest.mark.parametrize("made", [channel, view, record, failure], ids=lambda made: made.__name__)
def test_the_line_with_most_bytes_is_named(made):
    tracemalloc.start(12)
    try:
        things, lines = [made() for _ in range(3)], Counter()
        births = BirthLines(PYTHON, (), NONE)
        for thing in things:
            births.charge(thing, lines)
    finally:
        tracemalloc.stop()
    best, nbytes = lines.most_common(1)[0]
    assert best.endswith(f"{Path(__file__).name}:{heavy_line(made.__name__)}"), lines
    assert nbytes >= 3 * 20_000


def test_what_is_older_is_charged_to_nobody():
    old = Channel()
    tracemalloc.start(12)
    try:
        lines = Counter()
        BirthLines(PYTHON, (), NONE).charge([old], lines)
    finally:
        tracemalloc.stop()
    assert sum(lines.values()) < 1000


def test_no_more_is_asked_once_the_time_is_over():
    tracemalloc.start(12)
    try:
        lines = Counter()
        BirthLines(PYTHON, (), NONE, until=time.thread_time()).charge(channel(), lines)
    finally:
        tracemalloc.stop()
    assert not lines


def test_a_loss_leads_to_the_line_that_ran_the_model(monkeypatch):
    torch = pytest.importorskip("torch")
    from memfit.frameworks.torch.leak_probe import TorchProbe

    monkeypatch.setattr(
        TorchProbe, "compiled", lambda self: {}
    )  # other tests of this process may have compiled something
    probes, lines = Probes([TorchProbe(), *PYTHON._probes]), Counter()
    model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.Tanh(), torch.nn.Linear(256, 1))
    shared = probes.shared(lambda kind: list(model.parameters()))
    assert not torch.is_anomaly_enabled()
    tracemalloc.start(12)
    probes.note_births(True)
    try:
        output = model(torch.randn(200, 64))
        ran = inspect.currentframe().f_lineno - 1
        loss = output.square().mean()
        BirthLines(probes, shared, NONE).charge(loss, lines)
    finally:
        probes.note_births(False)
        tracemalloc.stop()
    assert not torch.is_anomaly_enabled()
    best, nbytes = lines.most_common(1)[0]
    assert best.endswith(f"{Path(__file__).name}:{ran}"), lines
    assert nbytes > 200 * 256 * 4


def test_a_mode_that_the_program_set_itself_is_left_alone():
    torch = pytest.importorskip("torch")
    from memfit.frameworks.torch import node_births

    torch.autograd.set_detect_anomaly(True)
    try:
        node_births.note(True, compiled=False)
        node_births.note(False, compiled=False)
        assert torch.is_anomaly_enabled()
        assert torch.is_anomaly_check_nan_enabled()
    finally:
        torch.autograd.set_detect_anomaly(False)


def test_a_profiler_that_is_on_keeps_events():
    torch = pytest.importorskip("torch")
    from memfit.frameworks.torch.leak_probe import TorchProbe

    with torch.autograd.profiler.profile():
        known = TorchProbe().recording()
    assert known is not None
    assert "torch.profiler" in known.holder
    assert TorchProbe().recording() is None


WORKER = """
import os, sys, time
from memfit.api import worker_watch

KEPT = {}
result = sys.argv[1]
child = os.fork()
if not child:
    worker_watch.start(result)
    for number in range(20_000):
        KEPT[number] = bytearray(9_000)  # line 11
        time.sleep(0.002)
        if number % 50 == 0 and worker_watch.account_of(result, os.getpid()) is not None:
            break
    os._exit(0)
os.waitpid(child, 0)
print(child)
"""


def test_a_worker_tells_what_it_keeps(tmp_path):
    """In a process of its own, whose names are few, as those of a script are."""
    result, script = tmp_path / "found.json", tmp_path / "workers.py"
    script.write_text(WORKER)
    done = subprocess.run(
        [sys.executable, str(script), str(result)], capture_output=True, text=True, timeout=120, check=True
    )
    child = int(done.stdout)
    account = worker_watch.account_of(result, child)
    assert account is not None
    assert account.holder.endswith("KEPT")
    assert account.birth.endswith("workers.py:11")
    assert worker_watch.account_of(result, child + 1) is None
