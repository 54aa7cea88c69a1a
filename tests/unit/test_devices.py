"""Devices: names, the user's own table, and what is said of a damaged one."""

from __future__ import annotations

from pathlib import Path

import pytest

from memfit.errors import DeviceError
from memfit.machine.devices import devices, find_device
from memfit.units import parse_bytes


@pytest.fixture(autouse=True)
def _no_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEMFIT_DEVICES", str(tmp_path / "none.toml"))


@pytest.mark.parametrize("name", ["a100", "A100", "NVIDIA A100 80GB", "nvidia-a100-80gb", "A100_80GB", "a100-80g"])
def test_many_spellings_of_one_device(name: str) -> None:
    assert find_device(name).name == "NVIDIA A100 80GB"


def test_every_device_is_found_by_its_name_and_its_aliases() -> None:
    for device in devices():
        assert find_device(device.name) == device
        assert all(find_device(alias) == device for alias in device.aliases)
        low, expected, high = device.context
        assert 0 < low <= expected <= high < device.memory


def test_cpu_is_what_this_machine_has_left() -> None:
    device = find_device("CPU")
    assert device.kind == "cpu"
    assert device.memory > 0


def test_an_unknown_device_names_near_ones() -> None:
    with pytest.raises(DeviceError, match="H100"):
        find_device("h1000")


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_the_users_table_adds_and_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine.{suffix}"
    if suffix == "toml":
        path.write_text(
            '[device."Big One"]\nmemory = "1TiB"\n[device."NVIDIA T4"]\nvendor="nvidia"\nmemory = "15GiB"\n'
        )
    else:
        path.write_text(
            '{"device": {"Big One": {"memory": "1TiB"}, "NVIDIA T4": {"vendor": "nvidia", "memory": "15GiB"}}}'
        )
    monkeypatch.setenv("MEMFIT_DEVICES", str(path))
    assert find_device("big-one").memory == parse_bytes("1TiB")
    assert find_device("NVIDIA T4").memory == parse_bytes("15GiB")


@pytest.mark.parametrize(
    "text",
    [
        "not toml at all [",
        "device = 3\n",
        '[device.X]\nmemory = "lots"\n',
        "[device.X]\n",
        '[device.X]\nmemory="1GiB"\ncontext=1\n',
    ],
)
def test_a_damaged_table_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    monkeypatch.setenv("MEMFIT_DEVICES", str(path))
    with pytest.raises(DeviceError):
        find_device("X")
