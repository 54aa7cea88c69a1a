"""The largest value of a setting (batch, length) that fits: from two traces, not from a search of runs.

Traces at two values of the setting have the same ops and storages; only sizes differ. Each dimension of each storage is
then a straight line in the setting, and the size their product, so quadratic terms (attention over a length) come out
of two traces. Storages without a shape take a straight line through both sizes. The peak at any value is one sum over
these sizes; the largest value that fits is found by bisection on it, and traced to be sure; where that trace does not
fit, the model is drawn again through the two nearest traces. Where two traces differ in structure (a loop over
positions), the trace's peak itself is the function, one trace for each try.

Cost: two traces, about 20 evaluations of the model, one trace at the answer (more only where the model was off).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit.ir.trace import Trace

Need = Callable[[Trace], tuple[int, bool]]
LIMIT = 1 << 30
_CONFIRMATIONS = 8


def largest_setting(
    name: str,
    base: int,
    first: Trace,
    trace_at: Callable[[int], Trace],
    need: Need,
    say: Callable[[str, int | None, int | None], None],
) -> dict[str, Any]:
    """``{"setting", "value", "peak", "confirmed", "traces"}``: ``value`` is 0 where not even 1 fits.

    Args:
        name: of the setting; ``base``: the value at which ``first`` was traced.
        trace_at: traces the program with another value.
        need: bytes that a trace needs, and whether it fits.
    """
    traced: dict[int, Trace] = {base: first}

    def at(value: int) -> Trace:
        if value not in traced:
            say(f"tracing with {name}={value}", None, None)
            traced[value] = trace_at(value)
        return traced[value]

    model = SizeModel.of(base, first, base * 2, at(base * 2))
    if model is None:
        value = _largest(lambda value: need(at(value))[1], limit=base * 64)
    else:
        value = _largest(_fits_by(model, need), limit=LIMIT)
        fitting, too_large = 0, LIMIT + 1
        for _ in range(_CONFIRMATIONS):
            if not fitting < value < LIMIT:
                break
            if need(at(value))[1]:
                fitting = value
                if too_large > LIMIT:
                    break
            else:
                too_large = value
            nearest = sorted(traced, key=partial(_distance, value))[:2]
            closer = SizeModel.of(nearest[0], at(nearest[0]), nearest[1], at(nearest[1]))
            model = closer or model
            value = max(fitting, min(_largest(_fits_by(model, need), limit=too_large), too_large - 1))
        value = value if value in traced or value >= LIMIT or fitting == 0 else fitting
    if value == 0:
        return {"setting": name, "value": 0, "peak": need(first)[0], "confirmed": False, "traces": len(traced)}
    if value not in traced and model is not None:
        peak, confirmed = need(model.at(value))[0], False
    else:
        peak, confirmed = need(at(value))
    return {"setting": name, "value": value, "peak": peak, "confirmed": confirmed, "traces": len(traced)}


def _distance(value: int, other: int) -> int:
    return abs(other - value)


def _fits_by(model: SizeModel, need: Need) -> Callable[[int], bool]:
    return lambda value: need(model.at(value))[1]


def _largest(fits: Callable[[int], bool], limit: int) -> int:
    """The largest value in [0, limit] that fits, for a need that grows with the value; 0 where 1 does not fit."""
    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= limit and fits(high):
        low, high = high, high * 2
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


class SizeModel:
    """Storage sizes as functions of one setting."""

    def __init__(self, trace: Trace, base: int, constant: Any, slope: Any, factor: Any, straight: Any) -> None:
        self._trace, self._base = trace, base
        self._constant, self._slope, self._factor, self._straight = constant, slope, factor, straight

    @staticmethod
    def of(base: int, first: Trace, other: int, second: Trace) -> SizeModel | None:
        """The model through two traces; None where their structures differ."""
        same = len(first) == len(second) and len(first.storages) == len(second.storages) and base != other
        if (
            not same
            or not np.array_equal(first.storage, second.storage)
            or not np.array_equal(np.sign(first.delta), np.sign(second.delta))
        ):
            return None
        count = len(first.storages)
        rank = max((len(storage.shape) for storage in first.storages), default=0) or 1
        dims = np.ones((2, count, rank))
        sizes = np.zeros((2, count))
        for row, trace in enumerate((first, second)):
            for index, storage in enumerate(trace.storages):
                sizes[row, index] = storage.nbytes
                if len(storage.shape) <= rank:
                    dims[row, index, : len(storage.shape)] = storage.shape
        slope = (dims[1] - dims[0]) / (other - base)
        constant = dims[0] - slope * base
        product = np.prod(dims, axis=2)
        factor = np.divide(sizes, product, out=np.zeros_like(sizes), where=product > 0)
        by_shape = (np.abs(factor[0] - factor[1]) <= 1e-9 * np.abs(factor[0])) & (product[0] > 0)
        straight_slope = (sizes[1] - sizes[0]) / (other - base)
        straight = np.stack([sizes[0] - straight_slope * base, straight_slope])
        return SizeModel(first, base, constant, slope, np.where(by_shape, factor[0], np.nan), straight)

    def sizes(self, value: int) -> npt.NDArray[np.int64]:
        """Bytes of each storage at ``value``, never negative."""
        shaped = self._factor * np.prod(np.maximum(self._constant + self._slope * value, 0), axis=1)
        line = self._straight[0] + self._straight[1] * value
        sizes: npt.NDArray[np.int64] = np.maximum(np.rint(np.where(np.isnan(self._factor), line, shaped)), 0).astype(
            np.int64
        )
        return sizes

    def at(self, value: int) -> Trace:
        """The trace with the sizes of ``value``; shapes stay those of the first trace."""
        sizes = self.sizes(value)
        storages = tuple([
            storage if storage.nbytes == size else replace(storage, nbytes=size)
            for storage, size in zip(self._trace.storages, sizes.tolist(), strict=True)
        ])  # fmt: skip
        return replace(self._trace, storages=storages, delta=np.sign(self._trace.delta) * sizes[self._trace.storage])
