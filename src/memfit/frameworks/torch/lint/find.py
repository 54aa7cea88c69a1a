"""Run every rule on a step and weigh what it finds, by tracing the step again as it would be with the advice followed."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from memfit.analyses.timeline import timeline
from memfit.errors import MemfitError
from memfit.frameworks.torch.lint.finding import LEAST, Finding, Rule, Seen, live_after
from memfit.frameworks.torch.lint.lasting import retained, undetached
from memfit.frameworks.torch.lint.modes import evaluation, zeros
from memfit.frameworks.torch.lint.tensors import copies, doubles
from memfit.frameworks.torch.lint.trained import input_gradients, untrained
from memfit.frameworks.torch.lint.unvisited import graph_of_gradients, unvisited
from memfit.frameworks.torch.lint.watch import Watch
from memfit.frameworks.torch.recorder import shown_file
from memfit.frameworks.torch.steps import is_training
from memfit.frameworks.torch.tape import trace_step
from memfit.ir.step import Step
from memfit.ir.trace import Trace

RULES: tuple[Rule, ...] = (
    unvisited, graph_of_gradients, retained, undetached, untrained, input_gradients, evaluation, zeros, copies, doubles,
)  # fmt: skip
STEPS = 3  # two show what lasts, the third what grows
WEIGHED = 12  # findings that get a trace of their own; the others keep what their rule says
_log = logging.getLogger("memfit")


@dataclass(frozen=True)
class Linted:
    """All findings, the largest first; the trace; ``saved``: most bytes that graphs keep at one time, projected."""

    findings: list[Finding]
    trace: Trace
    saved: int


def lint_step(
    build: Callable[[], Step] | Step, say: Callable[[str, int | None, int | None], None], origin: Any = None
) -> Linted:
    """Findings of all rules for a program.

    Args:
        build: as ``trace_step`` takes it.
        say: called with (description, done, total).
        origin: the function that makes the step, for findings that no line of it leads to.

    Raises:
        MemfitError: the program raises, or cannot be traced on hollow tensors.

    Cost: one watched trace, and one trace a finding.
    """
    watch = Watch()
    say("watching what autograd keeps", None, None)
    trace = trace_step(build, steps=STEPS, observer=watch)
    step = watch.step
    assert step is not None
    names = {id(m): n for n, m in step.model.named_modules() if n} if isinstance(step.model, nn.Module) else {}
    seen = Seen(watch, trace, is_training(step), step.run is not None, STEPS - 1, names, _begins(origin))
    findings = [finding for rule in RULES for finding in rule(seen)]
    say("weighing", 0, min(len(findings), WEIGHED))
    weighed = []
    for number, finding in enumerate(findings):
        if number >= WEIGHED or _weigh(finding, build, trace):
            weighed.append(finding)
        say("tracing the step as it would be", min(number + 1, WEIGHED), min(len(findings), WEIGHED))
    worth = [one for one in weighed if one.wrong or one.bytes >= LEAST]
    saved = seen.bytes_of(save for save in seen.saves if save.backward < 0)
    return Linted(sorted(worth, key=lambda one: (-one.at_peak, -one.held, one.line)), trace, saved)


def _begins(function: Any) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    file = shown_file(code) if code is not None else None
    return f"{file}:{code.co_firstlineno}" if code is not None and file else ""


def _weigh(finding: Finding, build: Callable[[], Step] | Step, trace: Trace) -> bool:
    """Put down what the advice is worth; False where the program does not run with it, so that it is none."""
    without = finding.without
    if without is None:
        if finding.change is None:
            return True
        try:
            without = trace_step(build, steps=STEPS, observer=finding.change)
        except MemfitError as error:
            _log.debug("%s at %s: %s", finding.rule, finding.line, error)
            return False
    finding.at_peak = max(0, timeline(trace).peak - timeline(without).peak)
    if not finding.a_step and [op.name for op in trace.ops] == [op.name for op in without.ops]:
        finding.held = max(0, int((live_after(trace) - live_after(without)).max()))
    return True
