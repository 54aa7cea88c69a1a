"""The bytes behind a TensorFlow Program's constants: arrays by content, variables that the program assigns by handle.

Equal contents give equal references, so that a weight that two variables hold counts once. Cost: hashing, about 1 s a GB.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from memfit.ir.program import Constant, Type

_DTYPES = {
    "half": "float16",
    "qint8": "int8",
    "quint8": "uint8",
    "qint16": "int16",
    "quint16": "uint16",
    "qint32": "int32",
}


def dtype_name(dtype: Any) -> str:
    """The name of a TensorFlow dtype here; a handle of any kind is "string", as many bytes."""
    name = dtype.name
    return "string" if name in ("resource", "variant") else _DTYPES.get(name, name)


class Values:
    """Reference -> array, or the handle of a variable."""

    def __init__(self) -> None:
        self._arrays: dict[str, Any] = {}
        self.handles: dict[str, Any] = {}

    def add(self, array: Any) -> Constant:
        """The constant with an array's content."""
        array = np.asarray(array)
        dtype = "string" if array.dtype.kind in "OSU" else array.dtype.name
        content = repr(array.tolist()).encode() if dtype == "string" else np.ascontiguousarray(array).tobytes()
        digest = hashlib.blake2b(f"{dtype}{array.shape}".encode(), digest_size=12)
        digest.update(content)
        constant = Constant(Type(dtype, tuple(array.shape)), digest.hexdigest())
        self._arrays.setdefault(constant.reference, array)
        return constant

    def add_handle(self, name: str, kind: Type, handle: Any) -> Constant:
        """The constant that stands for what a variable holds at the beginning."""
        reference = f"variable:{name}:{len(self.handles)}"
        self.handles[reference] = handle
        return Constant(kind, reference)

    def array(self, constant: Constant) -> Any:
        """The constant as an array; a variable as it is now."""
        if constant.reference in self.handles:
            import tensorflow as tf

            dtype = tf.as_dtype(constant.type.dtype)
            return tf.raw_ops.ReadVariableOp(resource=self.handles[constant.reference], dtype=dtype).numpy()
        return self._arrays[constant.reference]
