"""Torch tensors over segments: memory that a segment names, holds to its limit and protects.

A tensor knows no read-only memory: a kernel that writes to a protected segment, or past its limit, faults, and the
handler says which segment, where and what (``memfit.runtime.segments``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from memfit.errors import SegmentError
from memfit.runtime.segments import Segment, WeightSegment

_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "U16": torch.uint16, "I16": torch.int16,
    "U32": torch.uint32, "I32": torch.int32, "U64": torch.uint64, "I64": torch.int64, "F16": torch.float16,
    "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}  # fmt: skip
_ALIGNMENT = 64


def tensor_over(
    segment: Segment, shape: int | Sequence[int], dtype: torch.dtype = torch.float32, *, offset: int | None = None
) -> torch.Tensor:
    """A tensor over the segment: at ``offset`` bytes, or behind what was given out before. It keeps the memory.

    Raises:
        SegmentError: it would end past the limit.
    """
    extents = (shape,) if isinstance(shape, int) else tuple(shape)
    nbytes = math.prod(extents) * dtype.itemsize
    at = -(-segment.used // _ALIGNMENT) * _ALIGNMENT if offset is None else offset
    if at < 0 or at + nbytes > segment.limit:
        raise SegmentError(segment.name, at, f"a tensor of {nbytes} bytes",
                           f"it ends {at + nbytes - segment.limit} bytes past the limit of {segment.limit}"
                           if at >= 0 else "it begins before the base")  # fmt: skip
    if offset is None:
        segment.used = at + nbytes
    if not nbytes:
        return torch.empty(extents, dtype=dtype)
    raw = torch.frombuffer(segment.buffer(), dtype=torch.uint8, count=nbytes, offset=at)
    strides = [math.prod(extents[i + 1 :]) for i in range(len(extents))]
    return torch.empty(0, dtype=dtype).set_(raw.untyped_storage(), 0, extents, strides)


def weights_of(segment: WeightSegment) -> dict[str, torch.Tensor]:
    """Every tensor of a mapped file by name, without a copy: ``model.load_state_dict(weights_of(w), assign=True)``.

    Raises:
        SegmentError: a dtype that torch does not have.
    """
    found: dict[str, torch.Tensor] = {}
    for name, stored in segment.header.tensors.items():
        if stored.dtype not in _DTYPES:
            raise SegmentError(segment.name, stored.begin, f"tensor {name!r}", f"torch has no dtype {stored.dtype}")
        dtype = _DTYPES[stored.dtype]
        if stored.begin % dtype.itemsize:  # torch reads whole elements; such a file costs a copy of this tensor
            copied = torch.empty(stored.nbytes, dtype=torch.uint8)
            copied.copy_(tensor_over(segment, stored.nbytes, torch.uint8, offset=stored.begin))
            found[name] = copied.view(dtype).reshape(stored.shape)
        else:
            found[name] = tensor_over(segment, stored.shape, dtype, offset=stored.begin)
    return found
