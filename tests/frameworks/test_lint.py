"""`lint`: each rule triggers on its case and is silent on its twin, which saves what was promised; clean models are clean."""

from __future__ import annotations

import gc
import io
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import lint_targets
import pytest
import torch
from rich.console import Console
from torch import nn

from memfit.api.linting import lint
from memfit.api.prediction import predict
from memfit.cli.main import DONE, NO, REFUSED, main
from memfit.errors import TargetError
from memfit.ir.step import Step
from memfit.report.lint_summary import LintReport
from memfit.report.terminal_lint import draw_lint

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))
QUICK = ("gpt2", "resnet", "lstm")


def source(line: str) -> str:
    file, _, number = line.rpartition(":")
    return Path(file).read_text().splitlines()[int(number) - 1]


@cache
def linted(make: Callable[[bool], Step], fixed: bool = False) -> LintReport:
    return lint(make, settings={"fixed": fixed})


NAMES = [f"{rule}-{make.__name__}" for rule, make, _ in lint_targets.CASES]


@pytest.mark.parametrize(("rule", "make", "text"), lint_targets.CASES, ids=NAMES)
def test_a_rule_triggers_at_the_line_and_its_twin_is_silent(rule: str, make: Callable[[bool], Step], text: str) -> None:
    report = linted(make)
    found = [one for one in report.findings if one.rule == rule]
    assert found, [one.rule for one in report.findings]
    if text:
        assert text in source(found[0].line)
    assert found[0].line.rpartition(":")[0].endswith(".py")
    assert found[0].fix
    twin = linted(make, True)
    assert not twin.findings, twin.findings


# Findings whose advice is exactly what the twin does: the promise is what the twin really saves.
NO_EXACT = (
    "carried_state",
    "kept_losses",
    "running_loss",
    "validation_losses",
    "functional_without_use",
    "double_by_accident",
)
EXACT = [
    (rule, make) for rule, make, _ in lint_targets.CASES
    if make.__name__ not in NO_EXACT
]  # fmt: skip


@pytest.mark.parametrize(("rule", "make"), EXACT, ids=[make.__name__ for _, make in EXACT])
def test_the_bytes_promised_are_the_bytes_saved(rule: str, make: Callable[[bool], Step]) -> None:
    (finding,) = linted(make).findings
    assert finding.at_peak
    assert finding.nbytes == pytest.approx(linted(make).peak - linted(make, True).peak, rel=0.01)


def test_the_peak_is_the_one_that_predict_names() -> None:
    for fixed in (False, True):
        peak = predict(lint_targets.evaluation_with_graph, settings={"fixed": fixed}).peak.live
        assert linted(lint_targets.evaluation_with_graph, fixed).peak == peak


def test_a_promise_for_doubles_is_kept_and_exceeded() -> None:
    # The twin needs no cast back either.
    (finding,) = lint(lint_targets.double_by_accident).findings
    before, after = (
        predict(lint_targets.double_by_accident, settings={"fixed": one}).peak.live for one in (False, True)
    )
    assert 0.5 * (before - after) <= finding.nbytes <= before - after


def test_what_lies_off_the_peak_is_told_apart() -> None:
    (finding,) = linted(lint_targets.functional_without_use).findings
    assert not finding.at_peak
    assert finding.nbytes == finding.held == 4 * (8 * 256) * (8 * 64) // 4


def test_a_graph_kept_step_by_step_says_so() -> None:
    finding = next(one for one in linted(lint_targets.validation_losses).findings if one.rule == "detach")
    assert finding.a_step
    assert "1 more a step" in finding.what


def test_the_collector_is_left_as_it_was() -> None:
    lint(lint_targets.validation_losses)
    assert gc.get_freeze_count() == 0
    gc.freeze()  # by the program itself
    try:
        before = gc.get_freeze_count()
        lint(lint_targets.validation_losses)
        assert gc.get_freeze_count() >= before > 0
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", QUICK)
def test_clean_models_are_clean(name: str, train: bool) -> None:
    import zoo  # noqa: F401 - registers the architectures
    import zoo_steps

    report = lint(zoo_steps.REGISTERED[name], settings={"train": train})
    assert report.findings == ()
    assert (report.saved > 0) == train


@pytest.mark.slow
@pytest.mark.parametrize("train", [True, False])
def test_all_clean_models_are_clean(train: bool) -> None:
    import zoo  # noqa: F401 - registers the architectures
    import zoo_steps

    found = {
        name: [(one.rule, one.line) for one in lint(make, settings={"train": train}).findings]
        for name, make in zoo_steps.REGISTERED.items() if name not in QUICK
    }  # fmt: skip
    assert not any(found.values()), found


def momentum_encoder() -> Step:
    """A second model in train mode without a graph, as contrastive training has it, and gradients wanted twice."""
    online, momentum = lint_targets.body(64, 64, dropout=0.1), lint_targets.body(64, 64, dropout=0.1)

    def run(step: Step) -> torch.Tensor:
        with torch.no_grad():
            wanted = momentum(step.inputs)
        output = step.model(step.inputs)
        ((output - wanted) ** 2).mean().backward(retain_graph=True)
        (output**2).mean().backward()
        step.optimizer.step()
        step.optimizer.zero_grad()
        return output.detach()

    return Step(online, lint_targets.data(), optimizer=lint_targets.sgd(online), run=run)


def gradient_penalty() -> Step:
    """A graph of gradients that is differentiated, and inputs whose gradient is wanted."""
    model = lint_targets.body(64, 64)

    def run(step: Step) -> float:
        values = step.inputs.detach().requires_grad_()
        (slope,) = torch.autograd.grad(step.model(values).sum(), values, create_graph=True)
        return float(lint_targets.trained(step, (slope.norm(dim=1) - 1).square().mean()))

    return Step(model, lint_targets.data(), optimizer=lint_targets.sgd(model), run=run)


class Snapshot(nn.Module):
    """A copy that is needed: its source is written afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 256)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        hidden = self.layer(values)
        before = hidden.clone()
        hidden.mul_(2)
        return (hidden + before).square().mean()


def needed_copy() -> Step:
    model = Snapshot()
    return Step(model, lint_targets.data(), optimizer=lint_targets.sgd(model))


def all_in_double() -> Step:
    model = lint_targets.body(64, 256).double()
    return Step(model, lint_targets.data().double(), lambda output: output.square().mean(), lint_targets.sgd(model))


@pytest.mark.parametrize("make", [momentum_encoder, gradient_penalty, needed_copy, all_in_double])
def test_what_is_meant_so_is_silent(make: Callable[[], Step]) -> None:
    assert lint(make).findings == ()


def test_a_step_that_exists_is_neither_read_nor_changed() -> None:
    step = lint_targets.train_mode(False)
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    assert [one.rule for one in lint(step).findings] == ["eval-mode"]
    assert step.model.training
    assert all(torch.equal(value, before[name]) for name, value in step.model.state_dict().items())


def test_nothing_stays_patched_after_an_error() -> None:
    def broken() -> Step:
        def run(step: Step) -> None:
            step.model(step.inputs).sum().backward()
            raise ValueError("no such luck")

        return Step(nn.Linear(4, 4), torch.randn(2, 4), run=run)

    before = (nn.Module.__call__, nn.Module.zero_grad, torch.optim.Optimizer.zero_grad, torch.autograd.backward)
    with pytest.raises(TargetError, match="no such luck"):
        lint(broken)
    assert before == (nn.Module.__call__, nn.Module.zero_grad, torch.optim.Optimizer.zero_grad, torch.autograd.backward)
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: saved.append(1) or one, lambda one: one):
        torch.randn(3, requires_grad=True).exp()
    assert saved == [1]


def test_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    target = f"{Path(lint_targets.__file__)}:evaluation_with_graph"
    assert main(["lint", target, "--json", "--check"]) == NO
    data = json.loads(capfd.readouterr().out)
    assert {"rule", "line", "bytes", "fix"} <= set(data["findings"][0])
    assert data["findings"][0]["bytes"] == 1050628
    assert main(["lint", target]) == DONE
    assert "no-grad" in capfd.readouterr().out
    assert main(["lint", target, "--set", "fixed=True", "--check"]) == DONE
    assert "Nothing is kept for nothing" in capfd.readouterr().out


@pytest.mark.parametrize(
    "target", ["nowhere.py:step", "lint_targets", f"{lint_targets.__file__}:nothing", f"{lint_targets.__file__}:WIDTH"]
)
def test_bad_targets(target: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", target]) == REFUSED
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err


def test_names_are_no_markup() -> None:
    report = linted(lint_targets.evaluation_with_graph)
    odd = LintReport("[red]x[/red].py:step", report.findings, report.peak, report.saved, 1.0, ("[bold]",))
    text = io.StringIO()
    draw_lint(Console(file=text, width=80), odd)
    assert "[red]x[/red].py:step" in text.getvalue()
