"""`memfit calibrate`: measure on this machine what operations need inside."""

from __future__ import annotations

import click

from memfit.cli.answer import Answer
from memfit.cli.options import json_option
from memfit.cli.progress import progress_line
from memfit.report.terminal_calibration import draw_calibration


@click.command("calibrate")
@click.argument("ops", nargs=-1)
@json_option
def command(ops: tuple[str, ...], as_json: bool) -> Answer:
    """Measure the temporary bytes inside operations on this machine and keep the table for later predictions.

    OPS are names such as aten.convolution; none means all of the table.
    """
    from memfit.frameworks.torch.calibrate import calibrate  # here: it brings the framework

    with progress_line() as progress:
        result = calibrate(list(ops) or None, progress=progress)
    return Answer(result, lambda console: draw_calibration(console, result))
