"""The options of `memfit optimize` that make a model smaller by changing its numbers, and the call they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from memfit.cli.answer import Answer
from memfit.cli.progress import progress_line
from memfit.errors import TargetError
from memfit.units import parse_bytes

F = TypeVar("F", bound=Callable[..., Any])
NAMES = ("budget", "quantize", "sparsify", "formats", "calibration", "metric", "seconds", "repeats")
"""The parameters that these options set."""


def _size(context: click.Context, param: click.Parameter, value: str | None) -> int | None:
    return None if value is None else parse_bytes(value)


def _names(context: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(name.strip() for name in value.split(",") if name.strip())


_OPTIONS = (
    click.option("--budget", metavar="SIZE", callback=_size, help="Bytes of the written file; bits are chosen per layer."),
    click.option("--quantize", metavar="FORMAT", help="One format for all layers: int8, int6, int4, int4-g128, int3, int2."),
    click.option("--sparsify", metavar="2:4|SHARE", help="Drop two of each four values, or a share such as 0.8."),
    click.option("--formats", metavar="NAME,NAME", callback=_names, help="What --budget may choose from."),
    click.option("--calibration", metavar="FILE.py:FUNCTION", help="Returns the inputs to measure on; or an .npz file."),
    click.option("--metric", metavar="FILE.py:FUNCTION", help="Takes the model, returns a number: before and after."),
    click.option("--seconds", type=click.FloatRange(0), default=60.0, show_default=True,
                 help="Time for measuring layers one by one."),
    click.option("--no-run", "repeats", flag_value=0, type=int, default=5, is_flag=True,
                 help="Do not run both models in fresh processes for peak and time."),
)  # fmt: skip


def compression_options(function: F) -> F:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def is_compression(options: dict[str, Any]) -> bool:
    """Whether any of the options asks for a smaller model."""
    return any(options.get(name) is not None for name in ("budget", "quantize", "sparsify"))


def refuse_stray(options: dict[str, Any]) -> None:
    """Refuse what only a smaller model would use, where none is asked for.

    Raises:
        click.UsageError: there is such an option.
    """
    given = [f"--{name}" for name in ("formats", "calibration", "metric") if options.get(name) is not None]
    given += ["--no-run"] if options.get("repeats") == 0 else []
    if given:
        raise click.UsageError(
            f"{', '.join(given)} goes with --budget SIZE, --quantize FORMAT or --sparsify 2:4|SHARE: say how small the "
            "model is to be; without one of them only the exact passes run"
        )


def compression_answer(
    model: str, options: dict[str, Any], *, settings: dict[str, Any], output: str | None, html: str | None = None,
    png: str | None = None,
) -> Answer:  # fmt: skip
    """Run ``compress`` and hand back its answer. ``options``: the parameters of ``NAMES``."""
    if png is not None:
        from memfit.report.picture_frame import check_matplotlib  # before the measurements, not after

        check_matplotlib()
    from memfit.api.compressing import compress  # here: it brings the framework, which --help must not wait for
    from memfit.report.terminal_compression import draw_compression

    with progress_line() as progress:
        report = compress(
            model, settings=settings, output=output, tradeoff=html is not None or png is not None, progress=progress,
            **{name: options[name] for name in NAMES},
        )  # fmt: skip
    written = [name for name in (report.output, report.recipe) if name]
    if html is not None:
        from memfit.files import write_atomically
        from memfit.report.compression_page import compression_page

        write_atomically(html, compression_page(report))
        written.append(html)
    if png is not None:
        if not report.tradeoff:
            raise TargetError(png, "there is no trade-off to draw: outputs were not measured in other formats",
                              "draw a torch model, with a calibration batch")  # fmt: skip
        from memfit.files import write_atomically
        from memfit.report.tradeoff_chart import tradeoff_picture

        write_atomically(png, tradeoff_picture(report))
        written.append(png)
    return Answer(report.to_json(), lambda console: draw_compression(console, report, written))
