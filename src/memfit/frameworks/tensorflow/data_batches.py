"""Batches of a data set as tensors over the loader's own buffers, by DLPack."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

_ALIGNED = 64
"""TensorFlow ends the process at some operations on a tensor that lies otherwise, so such an array is copied."""


class TensorFlowBatches:
    """The TensorFlow side of ``memfit.data.Loader(output="tensorflow")``."""

    allocate = None

    def deliver(self, batch: dict[str, Any], brains: frozenset[str]) -> dict[str, Any]:
        """Eager tensors that share the arrays' memory; columns of ``brains`` are bits of bfloat16. Text and lists stay.

        An array that a function of the user made is copied where it is not contiguous or not at a multiple of 64 bytes.
        """
        return {name: _tensor(value, name in brains) for name, value in batch.items()}

    def placed(self) -> tuple[int, int]:
        """Rank 0 of 1: TensorFlow's processes do not know each other; give rank and ranks to the loader."""
        return 0, 1


def _tensor(value: Any, brain: bool = False) -> Any:
    if not isinstance(value, np.ndarray):
        return [_tensor(item) for item in value] if value and isinstance(value[0], np.ndarray) else value
    tensor = tf.experimental.dlpack.from_dlpack(value.__dlpack__()) if _shareable(value) else tf.constant(value)
    return tf.bitcast(tensor, tf.bfloat16) if brain and value.dtype == np.uint16 else tensor


def _shareable(array: NDArray[Any]) -> bool:
    return bool(array.size and array.flags.c_contiguous and array.flags.writeable and array.ctypes.data % _ALIGNED == 0)
