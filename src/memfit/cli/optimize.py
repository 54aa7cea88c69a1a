"""`memfit optimize`: a smaller model file; exact passes by default, fewer bits under a budget where asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from memfit.cli.answer import Answer
from memfit.cli.optimize_options import compression_answer, compression_options, is_compression, refuse_stray
from memfit.cli.options import bind_option, html_option, json_option, output_option, room_option, settings_option
from memfit.cli.progress import progress_line
from memfit.machine.devices import find_device
from memfit.report.optimize_summary import held_against
from memfit.report.terminal_optimize import draw_optimize


@click.command("optimize")
@click.argument("model")
@output_option("--output", text="Write the new model here; the passes write nothing without it.")
@bind_option
@click.option("--no-verify", is_flag=True, help="Do not run both models to compare their outputs.")
@click.option("--no-reorder", is_flag=True, help="Keep operations in their stored order.")
@click.option("--measure", is_flag=True, help="Also measure both in fresh processes.")
@room_option
@compression_options
@settings_option
@html_option
@output_option("--png", text="Draw quality against bytes (needs matplotlib).")
@json_option
def command(
    model: str, output: str | None, bound: dict[str, int], no_verify: bool, no_reorder: bool, measure: bool,
    device: str | None, settings: dict[str, Any], html: str | None, png: str | None, as_json: bool, **options: Any,
) -> Answer:  # fmt: skip
    """Fewer operations and bytes in MODEL: folded, merged, tied, reordered; never a higher peak.

    MODEL is an .onnx or .pt2 file, a SavedModel folder, a .keras file, or a function (file.py:function) that returns a
    step at inference; --output then writes a .pt2 file (PyTorch), a SavedModel (TensorFlow) or what jax.export serialises.

    Outputs are compared by running both models; open dimensions stay open.

    With --budget, --quantize or --sparsify: weights of fewer bits or values in MODEL, also a target (file.py:function) or
    a folder of safetensors files. A budget gives each layer the format whose measured error is worth its bytes.
    """
    place = None if device is None else find_device(device)
    if is_compression(options):
        if place is not None:
            raise click.UsageError(
                "--device holds the exact passes' peak against a memory; --budget is of the written file"
            )
        exact = {"--bind": bound, "--no-verify": no_verify, "--no-reorder": no_reorder, "--measure": measure}
        if any(exact.values()):
            given = ", ".join(name for name, value in exact.items() if value)
            raise click.UsageError(f"{given} goes with the exact passes, without --budget, --quantize and --sparsify")
        return compression_answer(model, options, settings=settings, output=output, html=html, png=png)
    refuse_stray(options)
    if html is not None or png is not None:
        raise click.UsageError("--html and --png are written with --budget, --quantize or --sparsify only")
    from memfit.api.optimizing import optimize  # here: it brings the core, which --help must not wait for

    with progress_line() as progress:
        report = optimize(
            model, output=output, bound=bound, settings=settings, verify=not no_verify, reorder=not no_reorder, measure=measure,
            progress=progress,
        )  # fmt: skip
    if place is not None:
        report = replace(report, extra=report.extra | held_against(report, place.name, place.room))
    return Answer(report.to_json(), lambda console: draw_optimize(console, report))
