"""`memfit predict`: where every byte goes, before it runs."""

from __future__ import annotations

import re
from typing import Any

import click

from memfit.cli.answer import Answer
from memfit.cli.options import (
    bind_option,
    budget_option,
    check_option,
    device_option,
    html_option,
    json_option,
    output_option,
    perfetto_option,
    settings_option,
    sweep_option,
    trace_option,
)
from memfit.cli.outputs import write_memory_files
from memfit.cli.progress import progress_line
from memfit.files import write_atomically
from memfit.report.terminal import draw_memory


@click.command("predict")
@click.argument("target", required=False)
@settings_option
@bind_option
@device_option
@budget_option
@click.option(
    "--find-batch", is_flag=False, flag_value="batch", metavar="[NAME]",
    help="The largest value of the setting NAME (default: batch) that fits.",
)  # fmt: skip
@sweep_option
@click.option("--cluster", metavar="ADDRESS", help="Predict a sweep on the workers of this dask scheduler.")
@click.option("--steps", type=click.IntRange(1), default=2, show_default=True, help="Steps to trace.")
@check_option
@html_option
@output_option("--png", text="Draw a sweep (needs matplotlib).")
@perfetto_option
@trace_option
@json_option
def command(
    target: str | None, settings: dict[str, Any], bound: dict[str, int], device: str, budget: int | None,
    find_batch: str | None, swept: dict[str, tuple[Any, ...]], cluster: str | None, steps: int,
    check: bool, html: str | None, png: str | None, perfetto: str | None, save_trace: str | None, as_json: bool,
) -> Answer:  # fmt: skip
    """Where every byte of TARGET's step goes, before it runs: nothing is allocated.

    TARGET is file.py:function, package.module:function, or a model file (.onnx).
    """
    if find_batch is not None and not re.fullmatch(r"[A-Za-z_]\w*", find_batch):
        if target is not None:
            raise click.UsageError(f"--find-batch takes the name of a setting, not {find_batch!r}")
        target, find_batch = find_batch, "batch"  # `--find-batch file.py:function`: the name was left out
    if target is None:
        raise click.UsageError("Missing argument 'TARGET': write file.py:function or package.module:function")

    if swept:
        if find_batch is not None or perfetto is not None or save_trace is not None:
            raise click.UsageError(
                "--sweep gives a table; --find-batch, --perfetto and --save-trace are of one prediction"
            )
        return _sweep(target, swept, settings, bound, device, budget, cluster, check, html, png)
    if png is not None:
        raise click.UsageError("--png is the picture of a sweep; add --sweep NAME=VALUES")
    if cluster is not None:
        raise click.UsageError("--cluster is where a sweep runs; add --sweep NAME=VALUES")
    from memfit.api.prediction import predict  # here: it brings the framework, which --help must not wait for

    with progress_line() as progress:
        report = predict(
            target,
            settings=settings,
            bound=bound,
            device=device,
            budget=budget,
            find_batch=find_batch,
            steps=steps,
            progress=progress,
        )
    written = write_memory_files(report, html, perfetto, save_trace)
    return Answer(
        report.to_json(), lambda console: draw_memory(console, report, written), no=check and report.fits is False
    )


def _sweep(
    target: str, swept: dict[str, tuple[Any, ...]], settings: dict[str, Any], bound: dict[str, int], device: str,
    budget: int | None, cluster: str | None, check: bool, html: str | None, png: str | None,
) -> Answer:  # fmt: skip
    if png is not None:
        from memfit.report.picture_frame import check_matplotlib  # before the predictions, not after

        check_matplotlib()
    from memfit.api.sweeping import sweep
    from memfit.report.terminal_sweep import draw_sweep

    with progress_line() as progress:
        report = sweep(
            target,
            swept,
            settings=settings,
            bound=bound,
            device=device,
            budget=budget,
            cluster=cluster,
            progress=progress,
        )
    if html is not None:
        from memfit.report.sweep_page import sweep_page

        write_atomically(html, sweep_page(report))
    if png is not None:
        from memfit.report.sweep_picture import sweep_picture

        write_atomically(png, sweep_picture(report))
    written = [path for path in (html, png) if path is not None]
    return Answer(report.to_json(), lambda console: draw_sweep(console, report, written), no=check and not report.fits)
