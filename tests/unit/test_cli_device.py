"""`--device` of the commands that hold a plan or a model against a memory: its size is used, another size is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memfit.cli.main import main
from memfit.machine.devices import find_device

TABLE = "id,lower,upper,size\na,0,2,1000\nb,1,3,2000\n"


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "devices.toml"
    table.write_text('[device."Small"]\nmemory = "2500 B"\n\n[device."Large"]\nmemory = "8 KiB"\n')
    monkeypatch.setenv("MEMFIT_DEVICES", str(table))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(TABLE)


def test_a_plan_is_held_against_a_devices_memory(devices: None, capsys: Any) -> None:
    assert main(["plan", "t.csv", "--device", "large", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["capacity"] == find_device("Large").room == 8192
    assert main(["plan", "t.csv", "--device", "small"]) == 2
    for other in (["--capacity", "1KiB"], ["--memories", "a:1KiB,b:2KiB"]):
        assert main(["plan", "t.csv", "--device", "large", *other]) == 2
        assert "give one" in capsys.readouterr().err


def test_what_a_device_keeps_for_its_driver_is_no_room() -> None:
    device = find_device("h100-80g")
    assert device.room == device.memory - device.context[1] - device.workspace < device.memory


@pytest.mark.parametrize("command", ["plan", "fit", "optimize", "layouts", "predict", "replay"])
def test_an_unknown_device_is_one_message(command: str, devices: None, capsys: Any) -> None:
    assert main([command, "t.csv", "--device", "none-such"]) == 2
    assert "not in the table" in capsys.readouterr().err


def test_fit_needs_a_budget_or_a_device(devices: None, capsys: Any) -> None:
    assert main(["fit", "step.py:step"]) == 2
    said = capsys.readouterr().err
    assert "--budget" in said
    assert "--device" in said


def test_python_m_memfit_is_the_command() -> None:
    import subprocess
    import sys

    said = subprocess.run(
        [sys.executable, "-m", "memfit", "--version"], capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith("memfit ")
