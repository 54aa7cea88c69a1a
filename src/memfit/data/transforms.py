"""What happens to a column on its way into a batch, fused into one ``Recipe`` where it can be.

``scale``, ``normalize``, ``channels`` and ``cast`` become one multiplication, one addition, one layout and one type in the
kernel that gathers; ``one_hot`` and functions of the user run on the batch afterwards, in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfit.data.column_file import DTYPES
from memfit.data.gather import FIRST_TO_LAST, KEEP_FIRST, KEEP_LAST, LAST_TO_FIRST, Recipe
from memfit.data.moments import channels_of
from memfit.data.schema import Column
from memfit.errors import DataError

Numbers = float | Sequence[float]
After = Callable[[NDArray[Any]], Any]

_NAMES = {
    "float32": "f4", "float64": "f8", "float16": "f2", "half": "f2", "bfloat16": "bf16", "uint8": "u1", "int8": "i1",
    "uint16": "u2", "int16": "i2", "uint32": "u4", "int32": "i4", "uint64": "u8", "int64": "i8", "bf16": "bf16",
}  # fmt: skip
_FLOATS = ("f2", "f4", "f8", "bf16")


@dataclass(frozen=True)
class Transform:
    """One named step; made by the functions below."""

    name: str
    values: tuple[Any, ...] = ()


def scale(factor: Numbers) -> Transform:
    """Multiply by ``factor``, one number or one per channel."""
    return Transform("scale", (factor,))


def normalize(mean: Numbers | None = None, std: Numbers | None = None) -> Transform:
    """Subtract the mean and divide by the standard deviation, one number or one per channel; left out: the column's own,
    as the data set's statistics have them.
    """
    return Transform("normalize", (mean, std))


def channels(order: str) -> Transform:
    """Bring the channels ``first`` (as torch wants images) or ``last``."""
    return Transform("channels", (order,))


def cast(dtype: str) -> Transform:
    """Change the type: ``float32``, ``bfloat16``, ``float16``, ``int64`` ... bfloat16 is uint16 bits in NumPy."""
    return Transform("cast", (str(dtype),))


def one_hot(classes: int) -> Transform:
    """A label becomes a float32 vector of ``classes`` numbers, one of them 1."""
    return Transform("one_hot", (int(classes),))


@dataclass(frozen=True)
class Fused:
    """``recipe`` runs in the kernel, ``after`` on its batch."""

    recipe: Recipe
    after: tuple[After, ...] = field(default_factory=tuple)


def fuse(column: Column, steps: Sequence[Transform | After], statistics: dict[str, Any] | None, path: str) -> Fused:
    """One recipe of a column's steps.

    Raises:
        DataError: a step does not fit the column; ``path`` names the data set.
    """
    state = _State(column, statistics, path)
    after: list[After] = []
    for step in steps:
        if not isinstance(step, Transform):
            after.append(step)
        elif step.name == "one_hot":
            after.append(_OneHot(step.values[0], path, column.name))
        elif after:
            raise DataError(path, f"{step.name} of column {column.name!r} comes after a function", hint="put it before")
        else:
            getattr(state, step.name)(*step.values)
    return Fused(state.recipe(), tuple(after))


class _State:
    def __init__(self, column: Column, statistics: dict[str, Any] | None, path: str) -> None:
        self.column, self.statistics, self.path = column, statistics, path
        self.channels_, self.inner = channels_of(column)
        self.first = column.channels == "first" or (self.channels_ == 1 and self.inner > 1)
        self.to_first = self.first
        self.factor = np.ones(self.channels_)
        self.added = np.zeros(self.channels_)
        self.affine = False
        self.target = column.dtype

    def _fail(self, why: str, hint: str = "") -> DataError:
        return DataError(self.path, f"column {self.column.name!r}: {why}", hint=hint)

    def _numbers(self, value: Any, what: str) -> NDArray[np.float64]:
        try:
            numbers = np.asarray(value, np.float64).reshape(-1)
        except (TypeError, ValueError) as error:
            raise self._fail(f"{what} {value!r} is no number") from error
        if numbers.size not in (1, self.channels_) or not np.isfinite(numbers).all():
            raise self._fail(
                f"{what} has {numbers.size} numbers for {self.channels_} channels, or one that is not finite"
            )
        return np.broadcast_to(numbers, (self.channels_,))

    def _floating(self) -> None:
        self.affine = True
        if self.target not in _FLOATS:
            self.target = "f4"

    def scale(self, factor: Any) -> None:
        numbers = self._numbers(factor, "scale")
        self._floating()
        self.factor, self.added = self.factor * numbers, self.added * numbers

    def normalize(self, mean: Any, std: Any) -> None:
        if mean is None or std is None:
            if self.statistics is None:
                raise self._fail("it has no statistics to normalise by", "give mean and std")
            # The stored figures are of the values as stored: what was multiplied before applies to them too.
            stored = [np.array([math.nan if x is None else x for x in self.statistics[k]]) for k in ("mean", "std")]
            mean = stored[0] * self.factor + self.added if mean is None else mean
            std = np.where(stored[1] > 0, stored[1] * np.abs(self.factor), 1.0) if std is None else std
        means, deviations = self._numbers(mean, "mean"), self._numbers(std, "std")
        if (deviations == 0).any():
            raise self._fail("a standard deviation of 0 cannot be divided by", "give std=1 there")
        self._floating()
        self.factor, self.added = self.factor / deviations, (self.added - means) / deviations

    def channels(self, order: str) -> None:
        if order not in ("first", "last") or not self.column.channels:
            raise self._fail(
                f"channels {order!r} cannot be brought about", "it needs an image column and first or last"
            )
        self.to_first = order == "first"

    def cast(self, dtype: str) -> None:
        name = _NAMES.get(dtype.removeprefix("torch."), dtype)
        if name not in (*DTYPES, "bf16") or name == "bool":
            raise self._fail(f"there is no type {dtype!r}", f"known: {', '.join(_NAMES)}")
        if self.affine and name not in _FLOATS:
            raise self._fail(f"{dtype} after scaling would cut off the fractions", "cast to a float, or use a function")
        self.target = name

    def recipe(self) -> Recipe:
        shape = self.column.shape
        if self.first == self.to_first:
            layout = KEEP_FIRST if self.first else KEEP_LAST
        elif self.to_first:
            layout, shape = LAST_TO_FIRST, (shape[-1], *shape[:-1])
        else:
            layout, shape = FIRST_TO_LAST, (*shape[1:], shape[0])
        source = "u1" if self.column.dtype == "bool" else self.column.dtype
        target = "u1" if self.target == "bool" else self.target
        numbers = (tuple(self.factor.tolist()), tuple(self.added.tolist())) if self.affine else ((), ())
        return Recipe(source, target, layout, self.channels_, self.inner, shape, *numbers)


class _OneHot:
    def __init__(self, classes: int, path: str, name: str) -> None:
        self.classes, self.path, self.name = classes, path, name
        if classes < 1:
            raise DataError(path, f"column {name!r}: one_hot needs at least one class, not {classes}")

    def __call__(self, labels: NDArray[Any]) -> NDArray[np.float32]:
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DataError(self.path, f"column {self.name!r}: one_hot needs whole numbers, one a row")
        if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise DataError(
                self.path, f"column {self.name!r} has labels from {labels.min()} to {labels.max()}, and one_hot was told "
                f"{self.classes} classes",
            )  # fmt: skip
        made = np.zeros((len(labels), self.classes), np.float32)
        made[np.arange(len(labels)), labels] = 1
        return made
