"""`memfit optimize`: a model file with fewer operations and bytes."""

from __future__ import annotations

import click

from memfit.cli.answer import Answer
from memfit.cli.options import bind_option, json_option, output_option
from memfit.cli.progress import progress_line
from memfit.report.terminal_optimize import draw_optimize


@click.command("optimize")
@click.argument("model")
@output_option("--output", text="Write the new model here; without it only the report.")
@bind_option
@click.option("--no-verify", is_flag=True, help="Do not run both models to compare their outputs.")
@click.option("--no-reorder", is_flag=True, help="Keep operations in their stored order.")
@click.option("--measure", is_flag=True, help="Also measure both in fresh processes.")
@json_option
def command(
    model: str, output: str | None, bound: dict[str, int], no_verify: bool, no_reorder: bool, measure: bool, as_json: bool
) -> Answer:  # fmt: skip
    """Fewer operations and bytes in MODEL (an .onnx file): folded, merged, tied, reordered; never a higher peak.

    Outputs are compared by running both models; open dimensions stay open.
    """
    from memfit.api.optimizing import optimize  # here: it brings the core, which --help must not wait for

    with progress_line() as progress:
        report = optimize(
            model, output=output, bound=bound, verify=not no_verify, reorder=not no_reorder, measure=measure,
            progress=progress,
        )  # fmt: skip
    return Answer(report.to_json(), lambda console: draw_optimize(console, report))
