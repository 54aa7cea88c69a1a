"""`memfit profile`: where every byte goes, while it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from memfit.cli.answer import Answer
from memfit.cli.options import (
    budget_option,
    check_option,
    device_option,
    html_option,
    json_option,
    perfetto_option,
    settings_option,
    trace_option,
)
from memfit.cli.outputs import write_memory_files
from memfit.cli.progress import progress_line
from memfit.cli.scripts import script_position
from memfit.report.terminal import draw_memory


class ScriptCommand(click.Command):
    """A command whose arguments after the name of a script belong to the script."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Put ``--`` before the script's own arguments, so that none of them is taken for an option of memfit."""
        position = script_position(args)
        if position is not None:
            args = [*args[:position], "--", *args[position:]]
        return super().parse_args(context, args)


@click.command("profile", cls=ScriptCommand)
@click.argument("target")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@settings_option
@device_option
@budget_option
@click.option("--steps", type=click.IntRange(1), default=3, show_default=True, help="Steps to run.")
@click.option("--compare", is_flag=True, help="Hold the projection against the measurement.")
@click.option("--stacks", is_flag=True, help="Record the source line of every allocation.")
@check_option
@html_option
@perfetto_option
@trace_option
@json_option
def command(
    target: str, arguments: tuple[str, ...], settings: dict[str, Any], device: str, budget: int | None, steps: int,
    compare: bool, stacks: bool, check: bool, html: str | None, perfetto: str | None, save_trace: str | None,
    as_json: bool,
) -> Answer:  # fmt: skip
    """Run TARGET's step and measure where every byte goes.

    TARGET is file.py:function, package.module:function, or a script.py with its own arguments after it; options of
    memfit go before the script.
    """
    if arguments and not target.endswith(".py"):
        raise click.UsageError(
            f"unexpected arguments {' '.join(arguments)!r}: only a script.py takes arguments, a target takes --set"
        )

    from memfit.api.profiling import profile  # here: it brings the framework, which --help must not wait for

    with progress_line() as progress:
        report = profile(
            target, settings=settings, steps=steps, compare=compare, stacks=stacks, device=device, arguments=arguments,
            progress=progress,
        )  # fmt: skip
    if budget is not None:
        report = replace(report, capacity=budget, fits=report.peak.live <= budget)
    written = write_memory_files(report, html, perfetto, save_trace)
    return Answer(
        report.to_json(), lambda console: draw_memory(console, report, written), no=check and report.fits is False
    )
