"""Batches of a data set as tensors over the loader's own buffers; pinned where there is a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class TorchBatches:
    """The torch side of ``memfit.data.Loader(output="torch")``."""

    def __init__(self) -> None:
        self.allocate = _pinned if torch.cuda.is_available() else None

    def deliver(self, batch: dict[str, Any], brains: frozenset[str]) -> dict[str, Any]:
        """Tensors that share the arrays' memory; columns of ``brains`` are bits of bfloat16. Text and lists stay."""
        return {name: _tensor(value, name in brains) for name, value in batch.items()}

    def placed(self) -> tuple[int, int]:
        """This process's rank and the number of ranks, where torch.distributed runs."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1


def _tensor(value: Any, brain: bool = False) -> Any:
    if not isinstance(value, np.ndarray):
        return [_tensor(item) for item in value] if value and isinstance(value[0], np.ndarray) else value
    if brain and value.dtype == np.uint16:
        return torch.from_numpy(value.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(value)


def _pinned(nbytes: int) -> NDArray[np.uint8]:
    """Page-locked memory, which a GPU reads while the program runs on."""
    array: NDArray[np.uint8] = np.frombuffer(
        torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy().data, np.uint8
    )
    return array
