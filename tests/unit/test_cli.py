"""The command line: arguments in, one api call, one answer out, and an exit code."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from fake_api import Api, install
from made_up_reports import made_up_fit, made_up_memory, made_up_profile

from memfit.cli import failures
from memfit.cli.answer import plain
from memfit.cli.main import COMMANDS, main
from memfit.cli.profile import command as profile_command
from memfit.cli.scripts import VALUE_OPTIONS
from memfit.errors import BudgetError, CaptureError, DeviceError, MissingFrameworkError, TargetError
from memfit.ir.trace import Trace

MIB = 1024**2
CALIBRATED = {
    "ops": [
        {"op": "aten.mm.default", "worst_error": 0.0, "calls": [{}, {}]},
        {"op": "aten.sort.default", "worst_error": 0.25, "calls": [{}]},
    ],
    "refitted": ["aten.sort.default"], "worst_error": 0.25, "path": "table.json",
}  # fmt: skip


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Api:
    monkeypatch.chdir(tmp_path)
    found = Api()
    found.answers = {
        "predict": made_up_memory(), "profile": made_up_profile(), "fit_target": made_up_fit(), "calibrate": CALIBRATED,
    }  # fmt: skip
    install(found, monkeypatch)
    return found


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def test_predict_hands_its_options_to_the_api(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(
        capfd, "predict", "a.py:f", "--set", "layers=2", "--set", "kind=gelu", "--device", "h100", "--budget", "2GiB",
        "--find-batch", "length", "--steps", "4",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert out.startswith("Peak live 1.53 GiB projected, at backward of transformer.h.3.attn")
    assert api.last == (
        "predict", ("a.py:f",),
        {
            "settings": {"layers": 2, "kind": "gelu"}, "bound": {}, "device": "h100", "budget": 2 * 1024 * MIB,
            "find_batch": "length", "steps": 4,
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ["--find-batch", "a.py:f"],
        ["a.py:f", "--find-batch"],
        ["--find-batch", "batch", "a.py:f"],
        ["a.py:f", "--find-batch=batch"],
    ],
)
def test_find_batch_with_and_without_a_name(api: Api, capfd: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run(capfd, "predict", *arguments)[0] == 0
    assert api.last[1] == ("a.py:f",)
    assert api.last[2]["find_batch"] == "batch"


def test_json_is_one_object_with_the_promised_keys(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "predict", "a.py:f", "--json")
    assert code == 0
    assert out.count("\n") == 1
    assert json.loads(out)["peak"]["live"] == 1642600000


@pytest.mark.parametrize(
    ("fits", "check", "code"), [(True, True, 0), (False, True, 1), (False, False, 0), (None, True, 0)]
)
def test_check_turns_no_into_1(
    api: Api, capfd: pytest.CaptureFixture[str], fits: bool | None, check: bool, code: int
) -> None:
    api.answers["predict"] = made_up_memory(fits=fits)
    assert run(capfd, "predict", "a.py:f", *(["--check"] if check else []))[0] == code


def test_profile_hands_its_options_to_the_api(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "profile", "m:f", "--compare", "--stacks", "--steps", "5")
    assert code == 0
    assert "Projected against measured" in out
    assert api.last == (
        "profile", ("m:f",),
        {"settings": {}, "steps": 5, "compare": True, "stacks": True, "device": "cpu", "arguments": ()},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "passed", "compare"),
    [
        (
            ["--compare", "train.py", "--epochs", "3", "--json", "-x", "data"],
            ("--epochs", "3", "--json", "-x", "data"),
            True,
        ),
        (["--steps", "2", "--html", "page.html", "./train.py", "--help"], ("--help",), False),
        (["train.py"], (), False),
        (["--json", "train.py", "--compare"], ("--compare",), False),
        (["train.py", "--", "a"], ("--", "a"), False),
    ],
)
def test_a_scripts_arguments_are_its_own(
    api: Api, capfd: pytest.CaptureFixture[str], arguments: list[str], passed: tuple[str, ...], compare: bool
) -> None:
    code, out, err = run(capfd, "profile", *arguments)
    assert (code, err) == (0, "")
    assert api.last[1][0].endswith("train.py")
    assert api.last[2]["arguments"] == passed
    assert api.last[2]["compare"] is compare
    assert out.startswith("{") == (arguments[0] == "--json")


def test_profile_answers_whether_a_budget_holds(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "profile", "m:f", "--budget", "1GiB", "--check", "--json")
    assert code == 1
    assert json.loads(out)["fits"] is False
    assert run(capfd, "profile", "m:f", "--budget", "2GiB", "--check")[0] == 0


@pytest.mark.parametrize(("text", "budget"), [("512MiB", 512 * MIB), ("33%", "33%"), ("100", 100), ("12.5%", "12.5%")])
def test_fit_hands_its_options_to_the_api(api: Api, capfd: pytest.CaptureFixture[str], text: str, budget: Any) -> None:
    code, out, _ = run(
        capfd, "fit", "m:f", "--budget", text, "--recipe", "r.json", "--allow-reassociation",
        "--levers", "recompute, in_place", "--no-verify",
    )  # fmt: skip
    assert code == 0
    assert out.startswith("Fits 512 MiB: peak 510 MiB measured")
    assert api.last == (
        "fit_target", ("m:f", budget),
        {
            "settings": {}, "allow_reassociation": True, "allow_inexact": False, "levers": ("recompute", "in_place"),
            "verify": False, "recipe": "r.json", "steps": 3,
        },
    )  # fmt: skip


def test_fit_verifies_bit_exactly_by_default(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    run(capfd, "fit", "m:f", "--budget", "1GiB")
    options = api.last[2]
    assert (options["verify"], options["allow_reassociation"], options["allow_inexact"], options["levers"]) == (
        True,
        False,
        False,
        None,
    )


def test_a_budget_that_is_not_kept_is_2(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    api.answers["fit_target"] = made_up_fit(feasible=False)
    code, out, _ = run(capfd, "fit", "m:f", "--budget", "1MiB", "--json")
    assert code == 2
    assert json.loads(out)["smallest_feasible"] == 431 * MIB


def test_calibrate(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "calibrate", "aten.mm", "--json")
    assert code == 0
    assert json.loads(out)["path"] == "table.json"
    assert api.last[1] == (["aten.mm"],)
    out = run(capfd, "calibrate")[1]
    assert out.startswith("2 operations measured, worst error 25.0% before refitting, 1 refitted")
    assert [line.split() for line in out.splitlines()[4:]] == [
        ["sort", "1", "25.0%,", "refitted"], ["mm", "2", "0.0%"], ["wrote", "table.json"],
    ]  # fmt: skip
    assert api.last[1] == (None,)
    api.answers["calibrate"] = {"ops": [], "refitted": [], "path": None}
    assert run(capfd, "calibrate")[1].startswith("0 operations measured")


def test_files_are_written_and_named(api: Api, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(
        capfd, "predict", "a.py:f", "--html", "p.html", "--perfetto", "p.json", "--save-trace", "p.npz"
    )  # fmt: skip
    assert code == 0
    assert out.splitlines()[-3:] == ["wrote p.html", "wrote p.json", "wrote p.npz"]
    assert (tmp_path / "p.html").read_text().startswith("<!doctype html>")
    assert json.loads((tmp_path / "p.json").read_text())["traceEvents"]
    assert len(Trace.load(tmp_path / "p.npz")) > 100
    assert run(capfd, "fit", "m:f", "--budget", "1GiB", "--html", "fit.html")[1].splitlines()[-1] == "wrote fit.html"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fit.html", "p.html", "p.json", "p.npz"]


ERRORS = [
    (TargetError("a.py:f", "there is no file"), "cannot use target 'a.py:f': there is no file", {"target": "a.py:f"}),
    (MissingFrameworkError("torch", "torch"), "install it with: pip install 'memfit[torch]'", {"extra": "torch"}),
    (ModuleNotFoundError("No module named 'torch'", name="torch.fx"), "torch is not installed", {"framework": "torch"}),
    (CaptureError("a print", "m.py:3"), "the step as one graph: a print, at m.py:3", {"where": "m.py:3"}),
    (DeviceError("h1", "unknown"), "device 'h1': unknown", {"device": "h1"}),
    (BudgetError(900, 100, "parameters"), "smallest feasible is 900 B (900 bytes)", {"needed": 900, "allowed": 100}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "text", "fields"), ERRORS, ids=lambda value: type(value).__name__)
def test_what_memfit_raises_is_one_message_and_2(
    api: Api, capfd: pytest.CaptureFixture[str], error: Exception, text: str, fields: dict[str, Any]
) -> None:
    api.answers["predict"] = error
    code, out, err = run(capfd, "predict", "a.py:f")
    assert (code, out) == (2, "")
    assert err.startswith("memfit: ")
    assert err.count("\n") == 1
    assert text in err
    code, out, err = run(capfd, "predict", "a.py:f", "--json")
    assert code == 2
    found = json.loads(out)["error"]
    assert text in found["message"]
    assert fields.items() <= found.items()


def test_an_infeasible_budget_still_answers(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    api.answers["fit_target"] = BudgetError(900, 100, "parameters")
    code, out, _ = run(capfd, "fit", "a.py:f", "--budget", "100", "--json")
    found = json.loads(out)
    assert code == 2
    assert (found["feasible"], found["budget"], found["smallest_feasible"]) == (False, 100, 900)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["predict"], "Missing argument 'TARGET'"),
        (["predict", "a.py:f", "--budget", "soon"], "not a size: 'soon'"),
        (["predict", "a.py:f", "--budget", "-1GiB"], "not a size: '-1GiB'"),
        (["fit", "a.py:f"], "Missing option '--budget'"),
        (["fit", "a.py:f", "--budget", "0"], "not a size: '0'"),
        (["fit", "a.py:f", "--budget", "140%"], "'140%' is no share of the unmodified peak"),
        (["fit", "a.py:f", "--budget", "x%"], "'x%' is no share of the unmodified peak"),
        (["predict", "a.py:f", "--set", "layers"], "write --set name=value"),
        (["predict", "a.py:f", "--find-batch", "1x"], "--find-batch takes the name of a setting"),
        (["predict", "a.py:f", "--steps", "0"], "--steps"),
        (["predict", "a.py:f", "--html", "nowhere/p.html"], "there is no folder nowhere"),
        (["profile", "m:f", "extra"], "only a script.py takes arguments"),
        (["predict", "a.py:f", "--hmtl", "x"], "--html"),
        (["nonsense"], "No such command 'nonsense'"),
        (["predict", "a.py:f", "b.py:g"], "unexpected extra argument"),
    ],
)
def test_wrong_use_is_one_message_and_2(
    api: Api, capfd: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    code, out, err = run(capfd, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("memfit: ")
    assert err.count("\n") == 1
    assert text in err
    assert not api.calls
    assert text in json.loads(run(capfd, *arguments, "--json")[1])["error"]["message"]


def test_an_interruption_is_130_and_leaves_no_file(api: Api, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    api.answers["predict"] = KeyboardInterrupt()
    code, out, err = run(capfd, "predict", "a.py:f", "--html", "p.html")
    assert (code, out) == (130, "")
    assert "interrupted" in err
    assert list(tmp_path.iterdir()) == []


def test_a_polite_kill_is_an_interruption(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    api.answers["predict"] = lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)
    before = signal.getsignal(signal.SIGTERM)
    assert run(capfd, "predict", "a.py:f")[0] == 130
    assert signal.getsignal(signal.SIGTERM) is before


def raising(error: BaseException, path: Path) -> Any:
    """A user's function in a file of its own that raises."""
    path.write_text("def step(error):\n    raise error\n")
    names: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    return lambda *_, **__: names["step"](error)


def test_what_the_users_code_raises_names_the_users_line(
    api: Api, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    api.answers["predict"] = raising(ValueError("bad shape\nmore"), tmp_path / "mine.py")
    code, _, err = run(capfd, "predict", "a.py:f")
    assert code == 2
    assert err.startswith(f"memfit: your program raised ValueError: bad shape, at {tmp_path}/mine.py:2")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]
)
def test_running_out_of_memory_says_what_helps(
    api: Api, capfd: pytest.CaptureFixture[str], tmp_path: Path, error: Exception
) -> None:
    api.answers["profile"] = raising(error, tmp_path / "mine.py")
    code, _, err = run(capfd, "profile", "a.py:f")
    assert code == 2
    assert "memory ran out while the program ran, at" in err
    assert "memfit fit --budget" in err


def test_a_script_that_ends_itself_is_said(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    api.answers["profile"] = SystemExit(3)
    code, _, err = run(capfd, "profile", "train.py")
    assert code == 2
    assert "ended itself with exit(3)" in err


def test_a_fault_of_memfit_is_called_a_bug_with_its_traceback_in_a_file(
    api: Api, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("memfit.cli.predict.write_memory_files", lambda *_: {}["missing"])
    monkeypatch.setattr("memfit.cli.failures._owner", lambda name: "memfit" if "memfit" in name else "library")
    code, _, err = run(capfd, "predict", "a.py:f")
    assert code == 2
    assert "KeyError: 'missing'" in err
    assert "this is a bug of memfit" in err
    path = err.split("the traceback in ")[1].strip()
    assert "Traceback (most recent call last)" in Path(path).read_text()
    os.unlink(path)


def test_plain_leaves_nothing_that_json_does_not_know() -> None:
    value = {
        "a": np.int64(3),
        "b": (np.float32(0.5), float("nan"), float("inf")),
        1: {None, True} - {None},
        "p": Path("x"),
    }
    assert json.dumps(plain(value), allow_nan=False) == '{"a": 3, "b": [0.5, null, null], "1": [true], "p": "x"}'


NOISY = """
import os, subprocess, sys
sys.path.insert(0, {tests!r})
import pytest
from fake_api import Api, install
from made_up_reports import made_up_memory
from memfit.cli.main import main
def noisy(*_, **__):
    print("noise of Python"); os.write(1, b"noise of native code\\n"); subprocess.run(["echo", "noise of a child"])
    return made_up_memory()
api = Api(); api.answers = {{"predict": noisy}}
install(api, pytest.MonkeyPatch())
sys.exit(main(["predict", "a.py:f", "--json"]))
"""


def test_json_stands_alone_on_standard_output_whatever_the_program_prints() -> None:
    source = NOISY.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["kind"] == "projected"
    for noise in ("Python", "native code", "a child"):
        assert f"noise of {noise}" in done.stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    source = NOISY.format(tests=str(Path(__file__).parent)).replace(', "--json"', "")
    done = subprocess.run(
        f"{sys.executable} -c '{source.replace(chr(39), chr(34))}' | true",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr


FRAMEWORKS = ("torch", "tensorflow", "jax", "transformers", "torchao", "onnx")


@pytest.mark.parametrize(
    "statement",
    [
        "import memfit",
        "from memfit.cli.main import main; assert main(['--help']) == 0",
        "from memfit.cli.main import main; assert main(['--version']) == 0",
        *(f"from memfit.cli.main import main; assert main(['{name}', '--help']) == 0" for name in COMMANDS),
        "from memfit.cli.main import main; assert main(['predict', 'x:f', '--budget', 'no']) == 2",
    ],
)
def test_no_framework_is_imported_for(statement: str) -> None:
    source = (
        f"{statement}\nimport sys\nprint([name for name in {FRAMEWORKS!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_import_memfit_imports_nothing_but_memfit() -> None:
    source = "import sys; before = set(sys.modules); import memfit; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    found = {name for name in ast.literal_eval(done.stdout) if name.partition(".")[0] not in sys.stdlib_module_names}
    assert found == {"memfit"}


def test_the_value_options_of_profile_are_all_known_where_scripts_are_told_apart() -> None:
    options = [p for p in profile_command.params if isinstance(p, click.Option) and not p.is_flag]
    assert {name for option in options for name in option.opts} == VALUE_OPTIONS


def test_help_names_every_command_and_every_command_has_one(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capfd.readouterr().out
    for name in COMMANDS:
        assert name in text
        assert main([name, "--help"]) == 0
        assert "Usage: memfit " + name in capfd.readouterr().out


@pytest.mark.parametrize(
    ("filename", "owner"),
    [
        (failures.__file__, "memfit"),
        (json.__file__, "library"),
        (np.__file__, "library"),
        ("<string>", "library"),
        (__file__, "user"),
        ("/usr/src/app/train.py", "user"),
    ],
)
def test_whose_code_a_file_is(filename: str, owner: str) -> None:
    assert failures._owner(filename) == owner
