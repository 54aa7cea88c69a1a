"""Tensors that a program holds beside its model, inputs and optimizer: they count in the peak, no schedule frees them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from memfit.frameworks.torch import allocator_hook
from memfit.frameworks.torch.capture import input_tensors
from memfit.ir.step import Step


@contextmanager
def hook_on() -> Iterator[Callable[[], int]]:
    """The allocator hook around the construction of a step; yields a function of live bytes (0 without the hook)."""
    if not allocator_hook.is_available():
        yield lambda: 0
        return
    with allocator_hook.installed():
        before = allocator_hook.live_bytes()

        def live() -> int:
            gc.collect()
            return allocator_hook.live_bytes() - before

        yield live


def held_beside(step: Step, live: int) -> int:
    """Bytes of ``live`` that are neither parameters, buffers, inputs nor optimizer state of ``step``; at least 0."""
    tensors = list(input_tensors(step.inputs))
    if isinstance(step.model, torch.nn.Module):
        tensors += [*step.model.parameters(), *step.model.buffers()]
    known = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.device.type == "cpu"}
    return max(0, live - sum(known.values()))
