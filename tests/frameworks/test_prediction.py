"""`predict` as its users call it: figures that add up, devices, budgets, the largest batch, clear errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from memfit.api.prediction import predict
from memfit.errors import DeviceError, MemfitError, TargetError
from memfit.ir.step import Step

WIDTH = 256


def target(batch: int = 4, width: int = WIDTH, length: int = 16) -> Step:
    model = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True)
    return Step(
        model, torch.randn(batch, length, width), lambda y: y.square().mean(), torch.optim.AdamW(model.parameters())
    )


def test_categories_add_up_to_the_live_peak() -> None:
    report = predict(target)
    document = report.to_json()
    assert sum(document["categories"].values()) == document["peak"]["live"] == document["peak"]["allocated"]
    parameters = sum(4 * p.numel() for p in target().model.parameters())
    assert document["categories"]["parameters"] == parameters
    assert document["categories"]["optimizer_state"] >= 2 * parameters
    low, high = document["peak"]["intervals"]["resident"]
    assert low <= document["peak"]["resident"] <= high
    assert document["fits"] is True
    assert set(document["at"]) >= {"step", "op", "module", "line"}
    assert document["alive"][0]["nbytes"] >= document["alive"][-1]["nbytes"]


def test_a_gpu_reserves_whole_segments_and_holds_a_context() -> None:
    report = predict(target, device="T4")
    peak = report.peak
    assert peak.live <= peak.allocated <= peak.reserved < peak.resident
    assert report.categories["outside"] > 200 << 20
    assert report.fits is True
    assert predict(target, device="T4", settings={"batch": 1 << 16}).fits is False


def test_a_budget_is_held_against_what_is_allocated() -> None:
    allocated = predict(target).peak.allocated
    assert predict(target, budget=allocated).fits is True
    report = predict(target, budget=allocated - 1)
    assert report.fits is False
    assert report.capacity == allocated - 1


@pytest.mark.parametrize("setting", ["batch", "length"])
def test_the_largest_value_fits_and_the_next_does_not(setting: str) -> None:
    budget = 64 << 20
    report = predict(target, budget=budget, find_batch=setting)
    assert report.largest_batch is not None
    value = report.largest_batch["value"]
    assert report.largest_batch["confirmed"] is True
    assert predict(target, settings={setting: value}, budget=budget).fits is True
    assert predict(target, settings={setting: value + 1}, budget=budget).fits is False


def test_a_step_a_function_and_a_file_agree(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\n"
        "def small(batch=4):\n"
        "    model = torch.nn.Linear(64, 64)\n"
        "    return model, torch.randn(batch, 64), None\n"
    )
    by_file = predict(f"{path}:small", settings={"batch": 8})
    model = nn.Linear(64, 64)
    by_step = predict(Step(model, torch.randn(8, 64)))
    assert by_file.peak.live == by_step.peak.live
    assert by_file.alive[0].line.endswith("mine.py:3")


def test_errors_are_memfits_own() -> None:
    with pytest.raises(DeviceError, match="not in the table"):
        predict(target, device="a1001")
    with pytest.raises(TargetError, match="settings"):
        predict(target, settings={"depth": 3})
    with pytest.raises(TargetError, match="no setting 'depth'"):
        predict(target, find_batch="depth")
    with pytest.raises(TargetError, match="function"):
        predict(target(), find_batch="batch")
    with pytest.raises(MemfitError, match="shape"):
        predict(lambda: Step(nn.Linear(3, 4), torch.randn(2, 5)))


@pytest.mark.parametrize("inputs_too", [False, True])
def test_a_model_on_the_meta_device_is_said_so(inputs_too: bool) -> None:
    def on_meta() -> Step:
        model = nn.Linear(8, 8, device="meta")
        inputs = torch.randn(2, 8, device="meta" if inputs_too else "cpu")
        return Step(model, inputs, lambda y: y.sum(), torch.optim.SGD(model.parameters()))

    for given in (on_meta, on_meta()):
        with pytest.raises(TargetError, match=r"meta device \(weight\).*build it on the CPU") as caught:
            predict(given)
        assert caught.value.target != "step"
