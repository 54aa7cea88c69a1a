"""``memfit.watch`` around a loop, as a service that is asked from outside, and as a plug-in of pytest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import memfit
from memfit.errors import LeakError, ServiceError

pytest_plugins = ["pytester"]


def test_a_loop_that_leaks():
    kept = []
    for _ in (watching := memfit.watch(range(60))):
        kept.append(bytearray(30_000))
    report = watching.report
    assert report.leaking, report
    assert any(finding.holder.startswith("kept in") for finding in report.findings)


def test_a_judgement_that_fails_does_not_hide_the_growth(monkeypatch):
    from memfit.api import leak_hunt

    def fails(*_, **__):
        raise RuntimeError("planned")

    kept = []
    hunt = leak_hunt.Hunt("a loop")
    for _ in range(60):
        hunt.watcher.turn("declared", "steps", "declared")
        kept.append(bytearray(30_000))
    with monkeypatch.context() as patch:
        patch.setattr(leak_hunt, "judge", fails)
        hunt.judge()
    kept.clear()
    hunt.judge_if_new()
    hunt.watcher.close()
    report = hunt.report()
    assert report.leaking is True
    assert any("planned" in note for note in report.notes)


def test_a_program_that_grows_for_long_is_judged_while_it_runs():
    """What is killed for its memory comes to no end; the account on disk names the holder by then."""
    from memfit.api import leak_hunt

    kept, hunt = [], leak_hunt.Hunt("a loop")
    for step in range(60):
        hunt.watcher.turn("declared", "steps", "declared")
        kept.append(bytearray(30_000))
        if step == 20:
            assert not hunt.watcher.judge_due
            hunt.watcher.lost -= 1e6  # hours later
    assert hunt.watcher.judge_due
    hunt.judge_on_the_way()
    report = hunt.report()
    assert report.leaking is True
    assert any(finding.holder.startswith("kept in") for finding in report.findings)
    assert any("while it ran" in note for note in report.notes)
    hunt.judge_if_new()  # at its end it is judged all the same
    assert not any("while it ran" in note for note in hunt.report().notes)
    hunt.watcher.close()


def test_of_two_lists_under_one_pattern_the_heavy_one_is_named():
    history = {"train": [], "validation": []}
    with memfit.watch() as watching:
        for step in range(60):
            watching.step()
            history["train"].append(float(step))
            history["validation"].append(bytearray(30_000))
    best = watching.report.findings[0]
    assert best.holder.startswith("history['validation']"), best
    assert best.bytes_per_step > 25_000


COMPRESSORS = """
import zlib
import memfit

def main():
    kept = []
    with memfit.watch() as watching:
        for _ in range(60):
            watching.step()
            kept.append(zlib.compressobj())
    best = watching.report.findings[0]
    print(best.holder, best.what, best.bytes_per_step, sep="|")

main()
"""


def test_memory_behind_objects_of_compiled_code_is_theirs(tmp_path):
    """A compressor shows some hundred bytes and holds a quarter of a megabyte outside of Python's objects.

    In a process of its own: in one that has run many tests malloc has much to give back and to give again.
    """
    script = tmp_path / "compressors.py"
    script.write_text(COMPRESSORS)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=True)
    holder, what, bytes_per_step = done.stdout.strip().split("|")
    assert holder.startswith("kept in")
    assert "Compress objects hold memory outside of Python" in what
    assert int(bytes_per_step) > 100_000


def test_a_loop_that_does_not():
    with memfit.watch() as watching:
        for k in range(60):
            watching.step()
            [k] * 1000  # noqa: B018
    assert watching.check().leaking is False


def test_check_raises_with_the_report():
    kept = {}
    with memfit.watch() as watching:
        for k in range(60):
            watching.step()
            kept[k] = bytearray(30_000)
    with pytest.raises(LeakError, match="kept") as caught:
        watching.check()
    assert caught.value.report.findings[0].bytes_per_step > 25_000


def test_few_steps_are_no_verdict():
    with memfit.watch() as watching:
        watching.step()
    assert watching.check().leaking is None


def test_without_an_iterable_there_is_nothing_to_iterate():
    with pytest.raises(TypeError, match="without an iterable"):
        iter(memfit.watch()).__next__()


EXAMPLE = Path(__file__).parents[2] / "examples" / "answering_service.py"


@pytest.mark.parametrize("leak", [True, False], ids=["leaks", "sound"])
def test_a_service_is_asked_from_outside(leak):
    """The service of the examples under requests over loopback: its slow leak is found, and without it nothing is."""
    options = ["--soak", "1000000", "--every", "0.05", *(["--leak"] if leak else [])]
    process = subprocess.Popen([sys.executable, str(EXAMPLE), *options], text=True, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline().startswith(f"process {process.pid} answers")
        for _ in range(6):
            assert process.stdout.readline().endswith("answered\n")
        found = asked(process.pid)
        while found["steps"] < 60:  # on a machine that is busy the samples are few
            assert process.stdout.readline().endswith("answered\n")
            found = asked(process.pid)
        if leak:
            assert found["leaking"] is True, found
            first = found["findings"][0]
            assert ".remembered" in first["holder"]  # of `answers` or of `self`, whichever frame is met first
            assert "answering_service.py" in first["birth"]
        else:
            assert found["leaking"] is not True, found["findings"]
            assert found["findings"] == []
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()


def asked(pid):
    run = subprocess.run([sys.executable, "-m", "memfit.cli.main", "leaks", "--json", "--pid", str(pid)],
                         capture_output=True, text=True, timeout=120, check=True)  # fmt: skip
    return json.loads(run.stdout)


def test_a_process_without_a_service():
    from memfit.api.watch_service import ask, serve

    with pytest.raises(ServiceError, match=r"memfit\.watch\.serve"):
        ask(os.getpid())
    with pytest.raises(ServiceError, match="cost too much"):
        serve(seconds=0.001)


def test_the_plug_in_fails_a_test_that_leaks(pytester):
    pytester.makepyfile("""
        import pytest
        kept = []

        @pytest.mark.memfit_no_leaks
        def test_leaks():
            kept.append(bytearray(40_000))

        @pytest.mark.memfit_no_leaks(steps=30)
        def test_sound(tmp_path):
            bytearray(40_000)

        @pytest.mark.memfit_no_leaks
        def test_loops(memfit_watch):
            for k in range(40):
                memfit_watch.step()
                kept.append(bytearray(40_000))

        @pytest.mark.memfit_no_leaks(steps=2)
        def test_few():
            pass
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n", "0")
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines(["*kept*", "*at least 13 steps are needed*"])
