"""`memfit calibrate`: measure on this machine what operations need inside."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from memfit.cli.answer import Answer
from memfit.cli.options import json_option
from memfit.cli.progress import progress_line


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
    data: dict[str, Any] = dict(result) if isinstance(result, dict) else {"result": result}

    def draw(console: Console) -> None:
        for name, value in data.items():
            console.print(f"{name}: {value}", markup=False, soft_wrap=True)

    return Answer(data, draw)
