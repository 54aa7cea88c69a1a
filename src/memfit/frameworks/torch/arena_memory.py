"""The memory of an arena: one segment, so that a kernel that runs out of it is named, and storages over parts of it."""

from __future__ import annotations

import torch

from memfit.frameworks.torch.segment_tensors import tensor_over
from memfit.runtime.segments import Segment


class ArenaMemory:
    """Grows on request; what lay in the smaller one is lost, and its memory goes when nothing looks at it any more."""

    def __init__(self, name: str = "arena") -> None:
        self.name = name
        self.segment: Segment | None = None

    @property
    def base(self) -> int:
        """The address of its first byte; 0 without memory."""
        return 0 if self.segment is None else self.segment.base

    def grow(self, nbytes: int) -> bool:
        """At least ``nbytes``; whether the memory is another one now."""
        if nbytes == 0 or (self.segment is not None and nbytes <= self.segment.limit):
            return False
        self.segment = Segment(self.name, nbytes)
        return True

    def storage(self, offset: int, nbytes: int) -> torch.UntypedStorage:
        """The bytes [offset, offset + nbytes) as a storage; it keeps the memory."""
        assert self.segment is not None
        return tensor_over(self.segment, nbytes, torch.uint8, offset=offset).untyped_storage()
