"""A step that looks at its own values is fitted as one graph, and stays exact whichever way it goes."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from torch import nn

from memfit.analyses.liveness import simulate
from memfit.errors import CaptureError
from memfit.frameworks.torch.capture import capture
from memfit.frameworks.torch.fitted import FittedStep, measured_program
from memfit.frameworks.torch.steps import run_step
from memfit.ir.step import Step
from memfit.passes.rematerialize import smallest_peak

SPEECH = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "vocab_size": 32,
}  # fmt: skip


def wav2vec2(layerdrop: float = 0.0) -> tuple[nn.Module, Any]:
    sound = torch.randn(2, 6400, generator=torch.Generator().manual_seed(1))
    inputs = {"input_values": sound, "labels": torch.tensor([[3, 4, 5, 9], [7, 8, -100, -100]])}
    return tf.Wav2Vec2ForCTC(tf.Wav2Vec2Config(**SPEECH, layerdrop=layerdrop)), inputs


def hubert() -> tuple[nn.Module, Any]:
    sound = torch.randn(2, 6400, generator=torch.Generator().manual_seed(1))
    config = tf.HubertConfig(**SPEECH, layerdrop=0.0, num_labels=5)
    return tf.HubertForSequenceClassification(config), {"input_values": sound, "labels": torch.tensor([1, 2])}


class Looking(nn.Module):
    """Layers around one look at a value; ``kind`` names it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.norm, self.last = nn.Linear(8, 32), nn.BatchNorm1d(32), nn.Linear(32, 1)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.dropout(torch.tanh(self.norm(self.first(x))), 0.2, True)
        self.calls += 1
        return self.last(getattr(self, self.kind)(y, x)).mean()  # type: ignore[no-any-return]

    def flips(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return y * 2 if self.calls > 2 else y.square()

    def never_nan(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.nan_to_num(y) if y.isnan().any() else y

    def item(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return y.relu() if 2 * y.square().mean().item() + 1 < 1e4 else y

    def used_number(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return y * math.sqrt(1 + self.calls.item())

    def loop(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        while x.norm() > 2:
            x, y = x * 0.5, y * 0.5
        return y

    def rows(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return y[x.sum(1) > 0]

    def drawn(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return y + torch.from_numpy(_noise(y.shape[1], 0.5))

    def random_branch(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return y if torch.rand([]) < 0.5 else y * 2

    def python_random(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return y * random.random()

    def python_count(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        self.seen = getattr(self, "seen", 0) + 1
        return y


def _noise(width: int, scale: float) -> np.ndarray:
    return (scale * np.random.standard_normal(width)).astype(np.float32)


def looking(kind: str) -> tuple[nn.Module, Any]:
    return Looking(kind), torch.randn(16, 8, generator=torch.Generator().manual_seed(4))


def twins(build: Callable[[], tuple[nn.Module, Any]]) -> tuple[Step, Step]:
    made = []
    for _ in range(2):
        torch.manual_seed(0)
        model, inputs = build()
        made.append(Step(model.train(), inputs, optimizer=torch.optim.AdamW(model.parameters(), lr=1e-2), train=True))
    return made[0], made[1]


def seeded(number: int) -> None:
    torch.manual_seed(number)
    np.random.seed(number)


def assert_same_steps(eager: Step, fitted: Callable[[], Any], other: Step, steps: int = 3) -> None:
    for number in range(steps):
        rows = []
        for run, step in ((lambda: run_step(eager), eager), (fitted, other)):
            seeded(number)
            loss = run()
            state = [torch.get_rng_state(), torch.from_numpy(np.random.get_state()[1].copy())]
            rows.append([loss, *state, *step.model.state_dict().values()])
        for place, (a, b) in enumerate(zip(*rows, strict=True)):
            assert torch.equal(a, b), f"value {place} after step {number}"


def fitted_between(step: Step, share: float) -> FittedStep:
    captured, program = measured_program(step)
    plan = smallest_peak(program.graph)
    return FittedStep(step, plan.peak + int(share * (plan.baseline_peak - plan.peak)), captured=captured)


@pytest.mark.parametrize(
    ("build", "share", "options"),
    [(wav2vec2, 0.8, {}), (hubert, 0.6, {"optimizer_state": "file", "offload": 0.5})],
)
def test_speech_models_that_mask_at_random_fit_as_one_graph(build: Any, share: float, options: Any) -> None:
    eager, other = twins(build)
    state = np.random.get_state()[1].copy()
    captured, program = measured_program(other)
    assert (np.random.get_state()[1] == state).all(), "a capture leaves no trace"
    budget = int(share * simulate(program.graph, range(len(program.graph.ops))).peak)
    fitted = FittedStep(other, budget, options=options, captured=captured)
    assert fitted.first.plan.peak <= budget
    assert_same_steps(eager, fitted, other)
    assert len(fitted.buckets[fitted.first.shapes]) == 1


@pytest.mark.parametrize("kind", ["never_nan", "item", "loop", "rows", "drawn"])
def test_a_look_at_a_value_is_followed_and_watched(kind: str) -> None:
    eager, other = twins(lambda: looking(kind))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = fitted_between(other, 0.3)
        assert_same_steps(eager, fitted, other)
    assert len(fitted.buckets[fitted.first.shapes]) <= (3 if kind in ("loop", "rows") else 1)


def test_a_branch_that_flips_gets_a_plan_of_its_own_and_stays_exact() -> None:
    eager, other = twins(lambda: looking("flips"))
    fitted = fitted_between(other, 0.5)
    assert_same_steps(eager, fitted, other, steps=5)
    assert len(fitted.buckets[fitted.first.shapes]) == 2


def test_a_number_that_is_used_in_each_step_ends_in_the_step_as_it_is() -> None:
    eager, other = twins(lambda: looking("used_number"))
    fitted = fitted_between(other, 1.0)
    with pytest.warns(UserWarning, match=r"outside of its budget: at .*test_outcomes\.py:\d+"):
        assert_same_steps(eager, fitted, other, steps=10)


@pytest.mark.parametrize("kind", ["random_branch", "python_random", "python_count"])
def test_what_cannot_be_watched_is_refused(kind: str) -> None:
    model, inputs = looking(kind)
    model.train().seen = 0  # type: ignore[assignment]
    with pytest.raises(CaptureError, match=r"random numbers|attribute 'seen'"):
        capture(Step(model, inputs, train=True))
    assert model.seen == 0


def test_layers_dropped_at_random_are_refused_with_the_line() -> None:
    model, inputs = wav2vec2(layerdrop=0.4)
    with pytest.raises(CaptureError, match=r"random numbers, at .*modeling_wav2vec2\.py:\d+"):
        capture(Step(model.train(), inputs, train=True))


def test_a_rare_random_branch_that_the_capture_missed_is_caught_in_the_run() -> None:
    class Rare(Looking):
        def item(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return y * 3 if torch.rand([]).item() < 0.004 else y

    def build() -> tuple[nn.Module, Any]:
        return Rare("item"), looking("item")[1]

    eager, other = twins(build)
    try:
        fitted = fitted_between(other, 0.6)
    except CaptureError:
        pytest.skip("the capture saw both ways")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same_steps(eager, fitted, other, steps=300)
