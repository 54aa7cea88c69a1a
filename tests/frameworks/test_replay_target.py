"""A program as the trace: its steps are traced, then replayed and planned."""

from __future__ import annotations

import torch

import memfit


def step(width: int = 256) -> memfit.Step:
    model = torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 64))
    optimizer = torch.optim.AdamW(model.parameters())
    return memfit.Step(model, torch.randn(32, 64), lambda out: out.square().mean(), optimizer)


def test_a_target_is_traced_and_replayed() -> None:
    report = memfit.replay(step, settings={"width": 128}, static=True, device="a100")
    assert report.kind == "projected"
    assert report.fits
    assert report.peak_live < min(row.peak_reserved for row in report.policies)
    predicted = memfit.predict(step, settings={"width": 128}, device="a100", steps=4)
    assert report.peak_live == predicted.peak.live
    assert report.static is not None
    assert report.static.repeats >= 2
    assert report.static.contenders[-1].static_share > 0.3
