"""Scalers with scikit-learn's names, arguments and fitted attributes, over mapped data that need not fit in memory.

They fit in blocks by the kernels of ``moments`` and ``quantiles`` and transform by the fused gather; scikit-learn is not
needed. Results equal its to rounding: figures are kept in float64, float32 data is scaled in float32. ``transform(X,
out=...)`` writes into an array that is used again. Values that are no numbers are left out of a fit, as there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from memfit.data.column_file import dtype_name
from memfit.data.gather import KEEP_LAST, Recipe
from memfit.data.moments import Moments
from memfit.data.quantiles import Quantiles
from memfit.data.schema import Column
from memfit.errors import DataError

_BLOCK = 8 << 20


class _Scaler(ABC):
    """What the scalers share: checks, blocks, one multiplication and one addition."""

    scale_: NDArray[np.float64]
    n_features_in_: int

    def _check(self, data: Any, fitted: bool = True) -> NDArray[Any]:
        array = data if isinstance(data, np.ndarray) else np.asarray(data)
        name = type(self).__name__
        if array.ndim != 2 or dtype_name(array.dtype) is None:
            raise DataError(name, f"it takes a matrix of numbers, not {array.dtype} of shape {array.shape}")
        if fitted and array.shape[1] != self.n_features_in_:
            raise DataError(name, f"it was fitted to {self.n_features_in_} features and is given {array.shape[1]}")
        return array

    def _fitted(self) -> None:
        if not hasattr(self, "scale_"):
            raise DataError(type(self).__name__, "it is not fitted yet", hint="call fit or partial_fit first")

    @abstractmethod
    def _affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Factor and addend of each feature."""

    def transform(self, data: Any, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """``data`` scaled, a new array or ``out``. Cost: one read, one write, at the speed of memory for float32."""
        self._fitted()
        array = np.ascontiguousarray(self._check(data))
        target = np.dtype(np.float32 if array.dtype == np.float32 else np.float64)
        made = np.empty(array.shape, target) if out is None else out
        if made.shape != array.shape or made.dtype != target or not made.flags.c_contiguous:
            raise DataError(type(self).__name__, f"out must be {target} of shape {array.shape}, in rows")
        factor, added = self._affine()
        source = str(dtype_name(array.dtype))
        width = array.shape[1]
        recipe = Recipe(
            source,
            str(dtype_name(target)),
            KEEP_LAST,
            width,
            1,
            (width,),
            tuple(factor.tolist()),
            tuple(added.tolist()),
        )
        offsets = np.arange(len(array), dtype=np.int64) * recipe.row_bytes
        if array.size:
            recipe.run(array.reshape(-1).view(np.uint8), offsets, made.reshape(-1).view(np.uint8))
        return made

    def inverse_transform(self, data: Any) -> NDArray[Any]:
        """What ``transform`` made, turned back."""
        self._fitted()
        array = self._check(data)
        factor, added = self._affine()
        wide = np.float32 if array.dtype == np.float32 else np.float64
        return np.asarray((array - added.astype(wide)) / factor.astype(wide))

    def fit_transform(self, data: Any, y: Any = None) -> NDArray[Any]:
        """``fit``, then ``transform``."""
        return self.fit(data, y).transform(data)

    @abstractmethod
    def fit(self, data: Any, y: Any = None) -> Self:
        """Fit anew."""

    def _column(self, array: NDArray[Any]) -> Column:
        return Column("x", str(dtype_name(array.dtype)), (array.shape[1],))


class _ByMoments(_Scaler):
    def __init__(self) -> None:
        self._moments: Moments | None = None

    def fit(self, data: Any, y: Any = None) -> Self:
        """Fit anew, in blocks of 8 MiB."""
        self._moments = None
        return self.partial_fit(data, y)

    def partial_fit(self, data: Any, y: Any = None) -> Self:
        """Go on fitting with further rows."""
        array = self._check(data, fitted=self._moments is not None)
        if not len(array):
            raise DataError(type(self).__name__, "there are no rows to fit")
        if self._moments is None:
            self.n_features_in_, self._moments = array.shape[1], Moments(self._column(array))
        step = max(1, _BLOCK // max(1, array.itemsize * array.shape[1]))
        for start in range(0, len(array), step):
            self._moments.add(array[start : start + step])
        self._take(self._moments)
        return self

    @abstractmethod
    def _take(self, moments: Moments) -> None: ...


class StandardScaler(_ByMoments):
    """Mean 0 and standard deviation 1: ``mean_``, ``var_``, ``scale_``, ``n_samples_seen_``."""

    def __init__(self, *, with_mean: bool = True, with_std: bool = True) -> None:
        super().__init__()
        self.with_mean, self.with_std = with_mean, with_std

    def _take(self, moments: Moments) -> None:
        counts = moments.count
        self.n_samples_seen_ = int(counts[0]) if (counts == counts[0]).all() else counts
        self.mean_, self.var_ = moments.mean, moments.variance
        # A feature that is constant up to rounding is left as it is.
        rounding = counts * np.finfo(np.float64).eps * self.var_ + (counts * self.mean_ * np.finfo(np.float64).eps) ** 2
        deviation = np.sqrt(self.var_)
        self.scale_ = np.where(self.var_ <= rounding, 1.0, deviation) if self.with_std else np.ones(len(counts))

    def _affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        factor = 1 / self.scale_
        return factor, -self.mean_ * factor if self.with_mean else np.zeros(len(factor))


class MinMaxScaler(_ByMoments):
    """Into a range: ``data_min_``, ``data_max_``, ``data_range_``, ``scale_``, ``min_``."""

    def __init__(self, feature_range: tuple[float, float] = (0, 1)) -> None:
        super().__init__()
        if not feature_range[0] < feature_range[1]:
            raise DataError("MinMaxScaler", f"the range {feature_range} is empty")
        self.feature_range = feature_range

    def _take(self, moments: Moments) -> None:
        low, high = self.feature_range
        self.n_samples_seen_ = int(moments.count.max())
        self.data_min_, self.data_max_ = moments.least, moments.greatest
        self.data_range_ = self.data_max_ - self.data_min_
        width = np.where(self.data_range_ < 10 * np.finfo(np.float64).eps, 1.0, self.data_range_)
        self.scale_ = (high - low) / width
        self.min_ = low - self.data_min_ * self.scale_

    def _affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.scale_, self.min_


class RobustScaler(_Scaler):
    """Median 0 and a range of quantiles 1, exact for float32 and narrower: ``center_``, ``scale_``. Two passes."""

    def __init__(
        self,
        *,
        with_centering: bool = True,
        with_scaling: bool = True,
        quantile_range: tuple[float, float] = (25.0, 75.0),
    ) -> None:
        if not 0 <= quantile_range[0] <= quantile_range[1] <= 100:
            raise DataError("RobustScaler", f"the quantile range {quantile_range} lies not within 0 to 100")
        self.with_centering, self.with_scaling, self.quantile_range = with_centering, with_scaling, quantile_range

    def fit(self, data: Any, y: Any = None) -> Self:
        """Fit anew: one pass that counts, one that counts what lies near the quantiles.

        Raises:
            DataError: no rows, or float64 or wide integers, whose order float32 does not keep.
        """
        array = self._check(data, fitted=False)
        if not len(array) or array.dtype.itemsize > 4 or (array.dtype.kind in "iu" and array.dtype.itemsize > 2):
            raise DataError("RobustScaler", f"it takes rows of float32 or narrower, not {len(array)} of {array.dtype}")
        self.n_features_in_ = array.shape[1]
        counts = Quantiles(self._column(array))
        step = max(1, _BLOCK // max(1, array.itemsize * array.shape[1]))
        blocks = [array[start : start + step] for start in range(0, len(array), step)]
        for block in blocks:
            counts.add(block)
        low, high = self.quantile_range
        first, middle, last = counts.refine(blocks, (low / 100, 0.5, high / 100))
        self.center_ = middle if self.with_centering else np.zeros(self.n_features_in_)
        width = last - first
        self.scale_ = (
            np.where(width < 10 * np.finfo(np.float64).eps, 1.0, width) if self.with_scaling else np.ones(len(width))
        )
        return self

    def _affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return 1 / self.scale_, -self.center_ / self.scale_
