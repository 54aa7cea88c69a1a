"""Which accelerators torch sees on this machine."""

from __future__ import annotations

import torch


def cuda_devices() -> int:
    """How many CUDA devices torch can use here; 0 on a build without CUDA."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
