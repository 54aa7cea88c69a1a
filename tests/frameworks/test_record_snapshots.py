"""The recorder of snapshots: says what it needs, and its training runs are programs that work."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

PATH = Path(__file__).parent.parent.parent / "examples" / "record_snapshots.py"


def recorder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("record_snapshots", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["record_snapshots.py", "--out", str(tmp_path / "out")])
    assert recorder().main() == 2
    assert "needs a GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_every_setting_of_its_runs_is_one_that_torch_takes() -> None:
    from memfit.allocators.caching_settings import parse_settings

    runs = recorder().RUNS
    assert len(runs) >= 6
    for settings, _, _ in runs.values():
        parse_settings(settings)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_recorded_runs_are_replayed_to_the_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["record_snapshots.py", "--out", str(tmp_path), "--steps", "4"])
    assert recorder().main() == 0
