"""`memfit lint`: what autograd keeps for nothing."""

from __future__ import annotations

from typing import Any

import click

from memfit.cli.answer import Answer
from memfit.cli.options import check_option, json_option, settings_option
from memfit.cli.progress import progress_line
from memfit.report.terminal_lint import draw_lint


@click.command("lint")
@click.argument("target")
@settings_option
@check_option
@json_option
def command(target: str, settings: dict[str, Any], check: bool, as_json: bool) -> Answer:
    """What autograd keeps in TARGET's step for nothing, with the bytes at stake, the line and the fix.

    TARGET is file.py:function or package.module:function. Nothing is run; with --check, exit 1 if anything is found.
    """
    from memfit.api.linting import lint  # here: it brings the framework, which --help must not wait for

    with progress_line() as progress:
        report = lint(target, settings=settings, progress=progress)
    return Answer(report.to_json(), lambda console: draw_lint(console, report), no=check and bool(report.findings))
