"""`memfit leaks` on scripts that misbehave: a sound verdict, or a clear "not enough steps"; never a traceback of memfit."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

GROWING = """
kept = []
def work(n):
    for k in range(n):
        kept.append(bytearray(20_000))
"""


def leaks(tmp_path, source, *arguments, options=("--json",), name="script.py"):
    (tmp_path / name).write_text(source)
    return subprocess.run(
        [sys.executable, "-m", "memfit.cli.main", "leaks", *options, name, *arguments],
        capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False,
    )  # fmt: skip


def verdict(run):
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def assert_found(found, holder="kept", kind="container"):
    assert found["leaking"] is True, found
    assert any(holder in row["holder"] and row["kind"] == kind for row in found["findings"]), found["findings"]


@pytest.mark.parametrize("end", [
    "", "raise ValueError('planned')", "import sys; sys.exit(3)", "import os; os._exit(4)",
    "import threading; threading.Thread(target=work, args=(40,)).start()",
], ids=["ends", "raises", "exits", "leaves", "threads"])  # fmt: skip
def test_a_leak_is_found_however_the_script_ends(tmp_path, end):
    run = leaks(tmp_path, GROWING + "work(60)\n" + end + "\n")
    found = verdict(run)
    assert_found(found)
    best = found["findings"][0]
    assert best["birth"] == best["grown_at"] == "script.py:5"
    assert 18_000 < best["bytes_per_step"] < 27_000  # a thread that goes on after the loop adds to its last steps
    assert "Traceback" not in run.stdout
    assert run.stderr.count("Traceback") == ("raise" in end)


def test_the_loop_itself_raises(tmp_path):
    found = verdict(
        leaks(tmp_path, GROWING.replace("kept.append", "if k == 50: 1 / 0\n        kept.append") + "work(60)\n")
    )
    assert_found(found)
    assert "ZeroDivisionError" in found["ended"]


def test_killed_by_a_signal(tmp_path):
    source = GROWING.replace("kept.append", "if k == 500: os.kill(os.getpid(), signal.SIGKILL)\n        kept.append")
    found = verdict(leaks(tmp_path, "import os, signal\n" + source + "work(600)\n"))
    assert found["leaking"] is True
    assert "SIGKILL" in found["ended"]


def test_a_forked_child_is_left_alone(tmp_path):
    source = (
        "import os\n"
        + GROWING
        + """
for k in range(30):
    child = os.fork()
    if not child:
        work(50)
        os._exit(0)
    os.waitpid(child, 0)
"""
    )
    assert verdict(leaks(tmp_path, source))["leaking"] is False


@pytest.mark.parametrize("source", ["x = 1\n", "import time; time.sleep(2)\n", "", "for k in range(3): print([k])\n"],
                         ids=["no loop", "two seconds", "empty", "three steps"])  # fmt: skip
def test_too_little_to_tell(tmp_path, source):
    found = verdict(leaks(tmp_path, source))
    assert found["leaking"] is None
    assert found["findings"] == []
    assert any("not enough steps" in note for note in found["notes"])


def test_megabytes_of_output_stay_out_of_the_answer(tmp_path):
    run = leaks(tmp_path, "for k in range(100):\n    print('x' * 50_000)\n")
    assert verdict(run)["leaking"] is False
    assert len(run.stderr) >= 5_000_000


def test_arguments_and_paths_are_the_script_s(tmp_path):
    source = (
        "import sys, os\nassert sys.argv == ['script.py', '--json', '5'], sys.argv\nassert __name__ == '__main__'\n"
    )
    assert verdict(leaks(tmp_path, source, "--json", "5"))["ended"] == ""


def test_check_says_no(tmp_path):
    assert leaks(tmp_path, GROWING + "work(60)\n", options=("--check",)).returncode == 1
    assert leaks(tmp_path, "for k in range(60): [k].copy()\n", options=("--check",)).returncode == 0


@pytest.mark.parametrize(("arguments", "words"), [
    (["nowhere.py"], "there is no file"), (["broken.py"], "no Python program"), ([], "name a script.py"),
    (["--pid", "1", "broken.py"], "one of the two"), (["--pid", "999999999"], "no such process"),
    (["--html", "no/such/folder.html", "broken.py"], "no folder"), (["thing.txt"], "is no script.py"),
])  # fmt: skip
def test_wrong_use_is_one_message(tmp_path, arguments, words):
    (tmp_path / "broken.py").write_text("def f(:\n")
    run = subprocess.run([sys.executable, "-m", "memfit.cli.main", "leaks", *arguments], capture_output=True, text=True,
                         cwd=tmp_path, timeout=60, check=False)  # fmt: skip
    assert run.returncode == 2
    assert words in run.stderr
    assert "Traceback" not in run.stderr


def test_a_page_shows_names_as_text(tmp_path):
    source = "kept = {'<b>x</b>': []}\nfor k in range(60):\n    kept['<b>x</b>'].append(bytearray(20_000))\n"
    run = leaks(tmp_path, source, options=("--html", "page.html"))
    assert run.returncode == 0
    page = (tmp_path / "page.html").read_text()
    assert "&lt;b&gt;x" in page
    assert "<b>x" not in page
