"""Quality against bytes: the whole model in one format after the other, in one sparsity after the other, and per layer.

    error |  * int2                         each point: the whole model's output error, measured, and the bytes of its file
          |     o 80 % zeros
          |    \\* int3                      the line: formats per layer (``passes/allocation``) at several budgets
          |     \\__* int4      o 50 % zeros
          |         \\______* int8
          +------------------------------ bytes

Cost: a conversion of every weight and a forward for each point; no new point is begun after ``seconds``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from memfit.fitting.compression import Compression, uniform
from memfit.frameworks.torch.compressible import restore_layer
from memfit.passes.allocation import Choice, allocate, smallest
from memfit.passes.formats import FORMATS, Format

Tried = tuple[str, str, int, float, float | None]
"""(series, name, bytes of the file, relative error of the output, metric); see ``report.compression_summary.TradePoint``."""
ZEROS = (0.5, 0.7, 0.8, 0.9)
"""Shares of zeros, stored as a bitmap."""
BUDGETS = 6
"""Budgets of the line, spaced by equal factors between the fewest bytes and those of the largest format."""


def tradeoff(
    work: Compression, names: tuple[str, ...], errors: dict[tuple[str, str], float],
    judge: Callable[[object], float | None], seconds: float,
) -> list[Tried]:  # fmt: skip
    """The points; the model is left as it was before compressing.

    Args:
        names: formats to try; ``errors``: (layer, format) -> squared output error alone, for the line; empty: no line.
        judge: the user's metric of the model, None where there is none.
    """
    began = time.monotonic()
    for layer in work.layers:
        restore_layer(layer)
    rest = work.overhead()
    points: list[Tried] = []

    def measure(series: str, name: str, formats: dict[str, Format], zeros: float = 0.5) -> None:
        if time.monotonic() - began > seconds:
            return
        error = work.measured(formats, zeros).relative
        if not math.isfinite(error):
            return
        nbytes = rest + sum(
            layer.stored_bytes(
                formats[layer.name], layer.rows * (layer.columns - min(layer.columns, round(layer.columns * zeros)))
            )
            for layer in work.layers
        )
        points.append((series, name, nbytes, error, judge(work.step.model)))

    for name in names:
        if FORMATS[name].kind == "int":
            measure("bits", name, uniform(work.layers, FORMATS[name])[0])
    for number, (budget, formats) in enumerate(_line(work, rest, names, errors)):
        measure("per layer", f"budget {number + 1}: {budget} bytes", formats)
    for zeros in (None, *ZEROS):
        form = FORMATS["2:4" if zeros is None else "bitmap"]
        formats, _ = uniform(work.layers, form, zeros or 0.5)
        measure("sparsity", form.name if zeros is None else f"{zeros:.0%} zeros", formats, zeros or 0.5)
    for layer in work.layers:
        restore_layer(layer)
    return points


def _line(
    work: Compression, rest: int, names: tuple[str, ...], errors: dict[tuple[str, str], float]
) -> list[tuple[int, dict[str, Format]]]:
    """(budget, format of each layer) at budgets from the fewest bytes to those of the largest packed format."""
    forms = [FORMATS[name] for name in names if FORMATS[name].kind in ("int", "keep")]
    if not errors or len(forms) < 2:
        return []
    table = [
        [Choice(layer.stored_bytes(form), errors[layer.name, form.name]) for form in forms] for layer in work.layers
    ]
    least = smallest(table)
    most = max(
        (sum(row[at].bytes for row in table) for at, form in enumerate(forms) if form.kind == "int"), default=least
    )
    found = []
    for part in range(BUDGETS):
        budget = round(least * (most / least) ** (part / (BUDGETS - 1)))
        picks = allocate(table, budget).picks
        found.append((rest + budget, {layer.name: forms[pick] for layer, pick in zip(work.layers, picks, strict=True)}))
    return found
