"""Bad input through the real verbs: each one clear message on standard error, exit 2, and nothing half done."""

from __future__ import annotations

import functools
import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from memfit.cli.main import main

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")

PROGRAM = """
import sys, time
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 64)

    def forward(self, x):
        return self.layer(x).square().mean()

def step(net, *shape):
    return net, torch.randn(*shape), torch.optim.SGD(net.parameters(), lr=0.1)

def good(batch=4):
    return step(Net(), batch, 64)

def raises():
    raise RuntimeError("no data\\nat all")

def returns_nothing():
    return None

def without_loss():
    return step(nn.Linear(64, 8), 2, 64)

def wrong_shape():
    return step(Net(), 2, 3)

def wrong_device():
    return step(Net().to("meta"), 2, 64)

def frozen():
    return {"model": Net().requires_grad_(False), "inputs": torch.randn(2, 64), "train": True}

def looks():
    class Looks(Net):
        def forward(self, x):
            y = self.layer(x)
            return (y * 2 if y.sum().item() > 0 else y).square().mean()
    return step(Looks(), 32, 64)

def waits():
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


VERBS = (["predict"], ["profile", "--steps", "1"], ["fit", "--budget", "1GiB", "--no-verify"])
BAD = [
    ("nowhere.py:good", "there is no file nowhere.py"),
    ("program.py:nonsense", "no function 'nonsense' in program.py; functions there: "),
    ("program.py", "write file.py:function or package.module:function"),
    ("no_such_module:good", "no_such_module"),
    ("program.py:raises", "it raises: RuntimeError: no data at all"),
    ("program.py:returns_nothing", "it returned NoneType, not a step"),
    ("program.py:without_loss", "it is asked to train and has no scalar loss"),
    ("program.py:wrong_shape", "mat1 and mat2 shapes cannot be multiplied"),
    ("program.py:frozen", "its loss does not require gradients"),
]

IS_GOOD = ("profile", "program.py")  # a script is a target of profile
CASES = [(verb, target, text) for verb in VERBS for target, text in BAD if (verb[0], target) != IS_GOOD]


@pytest.mark.parametrize(("verb", "target", "text"), CASES, ids=[f"{verb[0]} {target}" for verb, target, _ in CASES])
def test_a_bad_target_is_one_message_and_2(
    program: Path, capfd: pytest.CaptureFixture[str], verb: list[str], target: str, text: str
) -> None:
    code = main([*verb, target, "--json"])
    captured = capfd.readouterr()
    assert code == 2
    message = json.loads(captured.out)["error"]["message"]
    assert text in message
    assert captured.err.strip().endswith(message)
    assert "Traceback" not in captured.err
    assert [path.name for path in program.parent.iterdir() if path.suffix not in ("", ".py")] == []


@pytest.mark.parametrize("verb", VERBS[1:], ids=lambda verb: verb[0])
def test_a_model_on_the_wrong_device(program: Path, capfd: pytest.CaptureFixture[str], verb: list[str]) -> None:
    assert main([*verb, "program.py:wrong_device"]) == 2
    assert "meta" in capfd.readouterr().err


def test_an_unknown_device(program: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "program.py:good", "--device", "abacus"]) == 2
    assert "device 'abacus'" in capfd.readouterr().err


def test_a_setting_the_function_does_not_take(program: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "program.py:good", "--set", "width=3"]) == 2
    assert "signature: (batch=4)" in capfd.readouterr().err


def test_a_budget_below_the_smallest_feasible_names_that_one(program: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = main(["fit", "program.py:good", "--budget", "1KiB", "--no-verify", "--json"])
    captured = capfd.readouterr()
    found = json.loads(captured.out)
    assert code == 2
    assert (found["feasible"], found["budget"]) == (False, 1024)
    assert found["smallest_feasible"] > 64 * 64 * 4
    assert "because of" in captured.err
    assert not list(program.parent.glob("*.json"))


def test_a_check_that_does_not_hold_is_1(program: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "program.py:good", "--budget", "1KiB", "--check"]) == 1
    assert "fits in 1 KiB: NO" in " ".join(capfd.readouterr().out.split())
    assert main(["predict", "program.py:good", "--budget", "1MiB", "--check"]) == 0


def test_a_step_that_looks_at_values_is_predicted_and_fitted(program: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "program.py:looks"]) == 0
    assert main(["fit", "program.py:looks", "--budget", "1GiB", "--no-verify"]) == 0


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_a_missing_framework_names_the_extra(program: Path, verb: list[str]) -> None:
    without = "import sys; sys.modules['torch'] = None; from memfit.cli.main import main; "
    source = without + f"sys.exit(main({[*verb, 'program.py:good']!r}))"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "memfit: torch is not installed; install it with: pip install 'memfit[torch]'\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_file(program: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "memfit.cli.main", "predict", "program.py:waits", "--html", "page.html", "--json"]
    # A runner in the background of a shell ignores SIGINT, and so would what it starts.
    heeding = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeding
    ) as running:
        assert running.stderr is not None
        assert running.stdout is not None
        while (line := running.stderr.readline()) != "ready\n":
            assert line, "the program ended before it waited"
        running.send_signal(number)
        assert running.wait(60) == 130
        assert "interrupted" in running.stderr.read()
        assert json.loads(running.stdout.read())["error"]["kind"] == "Interrupted"
    assert sorted(path.name for path in program.parent.iterdir() if path.name != "__pycache__") == ["program.py"]
