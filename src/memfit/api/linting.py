"""`lint`: what autograd keeps in a step for nothing, and what would free it, before it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from memfit.analyses.timeline import timeline
from memfit.api.prediction import step_builder
from memfit.errors import target_named
from memfit.ir.step import Step
from memfit.report.lint_summary import LintFinding, LintReport

Progress = Callable[[str, int | None, int | None], None]


def lint(
    target: str | Step | Callable[..., Any], *, settings: Mapping[str, Any] | None = None, progress: Progress | None = None
) -> LintReport:  # fmt: skip
    """Findings about a step, each with the projected bytes at stake and the line of the program.

    Args:
        target: ``file.py:function``, the function itself, or a Step that exists (neither read nor changed).
        settings: keyword arguments for the function.
        progress: called with (description, done, total).

    Raises:
        MemfitError: the target cannot be used, is no program, or does not run on hollow tensors.

    Cost: one trace (see ``predict``) to look, and one for each finding.
    """
    from memfit.frameworks.target import load_function
    from memfit.frameworks.torch.lint.find import lint_step

    begun = time.perf_counter()
    build, name = step_builder(target, settings)
    say = progress or (lambda text, done, total: None)
    with target_named(name):
        if isinstance(target, Step):
            linted = lint_step(target, say)
        else:
            linted = lint_step(lambda: build({}), say, load_function(target) if isinstance(target, str) else target)
    findings = tuple(
        LintFinding(one.rule, one.line, one.bytes, one.held, one.at_peak > 0, one.a_step, one.module, one.what, one.fix)
        for one in linted.findings
    )
    notes = tuple(linted.trace.meta.get("notes", ()))
    return LintReport(name, findings, timeline(linted.trace).peak, linted.saved, time.perf_counter() - begun, notes)
