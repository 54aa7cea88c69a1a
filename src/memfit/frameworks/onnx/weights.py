"""The bytes behind a Program's constants: found by reference, read when asked for, told apart by content.

References of equal content, dtype and shape are equal from the start, so that a constant that a file holds twice counts
once everywhere. Tensors in files beside the model are mapped, not read. Cost of ``add``: hashing, about 1 s a GB.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from memfit.frameworks.onnx.element_types import dtype_name
from memfit.frameworks.onnx.model_file import data_file, is_external
from memfit.ir.program import Constant, Type


class Weights:
    """Reference -> tensor. One for each captured model; passes add what they make."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._protos: dict[str, Any] = {}
        self._arrays: dict[str, Any] = {}

    @property
    def maps_files(self) -> bool:
        """Whether some bytes lie in files beside the model."""
        return any(is_external(tensor) for tensor in self._protos.values())

    def add_proto(self, tensor: Any) -> Constant:
        """The constant of a TensorProto."""
        dtype, shape = dtype_name(tensor.data_type), tuple(tensor.dims)
        hasher = hashlib.blake2b(f"{dtype}{shape}".encode(), digest_size=12)
        if is_external(tensor):
            hasher.update(memoryview(self._mapped(tensor)).cast("B"))
        elif tensor.HasField("raw_data"):
            hasher.update(tensor.raw_data)
        else:
            hasher.update(repr(self._array_of(tensor).tolist()).encode())
            hasher.update(b"typed")
        constant = Constant(Type(dtype, shape), hasher.hexdigest())
        self._protos.setdefault(constant.reference, tensor)
        return constant

    def add_array(self, array: Any) -> Constant:
        """The constant of an array that a pass made."""
        import onnx

        array = np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array)
        dtype = dtype_name(onnx.helper.np_dtype_to_tensor_dtype(array.dtype)) if array.dtype != object else "string"
        hasher = hashlib.blake2b(f"{dtype}{array.shape}".encode(), digest_size=12)
        if dtype == "string":
            return self.add_proto(onnx.numpy_helper.from_array(array))
        if dtype in ("int4", "uint4", "float4_e2m1fn", "int2", "uint2"):
            return self.add_proto(onnx.numpy_helper.from_array(array))
        hasher.update(
            memoryview(array.view(np.uint8) if array.ndim else array.reshape(1).view(np.uint8)).cast("B")
            if array.size
            else b""
        )
        constant = Constant(Type(dtype, tuple(array.shape)), hasher.hexdigest())
        if constant.reference not in self._protos:
            self._arrays.setdefault(constant.reference, array)
        return constant

    def array(self, constant: Constant) -> Any:
        """The constant as a NumPy array; mapped where it lies in a file of its own."""
        if constant.reference in self._arrays:
            return self._arrays[constant.reference]
        return self._array_of(self._protos[constant.reference])

    def _array_of(self, tensor: Any) -> Any:
        import onnx

        if is_external(tensor):
            raw = self._mapped(tensor)
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            if dtype_name(tensor.data_type) in ("int4", "uint4", "float4_e2m1fn", "int2", "uint2"):
                whole = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=bytes(raw))
                return onnx.numpy_helper.to_array(whole)
            return raw.view(dtype).reshape(tuple(tensor.dims))
        return onnx.numpy_helper.to_array(tensor)

    def _mapped(self, tensor: Any) -> Any:
        assert self.path is not None
        file, offset, length = data_file(self.path, tensor)
        if length == 0:
            return np.zeros(0, dtype=np.uint8)
        return np.memmap(file, dtype=np.uint8, mode="r", offset=offset, shape=(length,))

    def proto(self, constant: Constant, name: str) -> Any:
        """The constant as a TensorProto called ``name``, its bytes inside."""
        import onnx

        known = self._protos.get(constant.reference)
        if known is not None and not is_external(known):
            copy = onnx.TensorProto()
            copy.CopyFrom(known)
        else:
            copy = onnx.numpy_helper.from_array(np.asarray(self.array(constant)))
        copy.name = name
        return copy
