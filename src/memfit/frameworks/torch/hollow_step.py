"""A hollow copy of a Step that exists: the same modules, optimizer and inputs over storages without data.

``copy.deepcopy`` with every tensor answered in advance: large ones by hollow tensors, small integers and buffers by
real copies (they decide branches). What cannot be copied so (a closure over the real model) is used as it is.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch

from memfit.frameworks.torch.hollow import hollow_like
from memfit.frameworks.torch.known_values import is_small
from memfit.frameworks.torch.tape_mode import Tape
from memfit.ir.step import Step


def hollow_step(step: Step, tape: Tape) -> Step:
    """The copy, its storages entered on the tape. Call it with the tape active.

    Raises:
        Exception: whatever an attribute raises that cannot be deep-copied.
    """
    with torch.utils._python_dispatch._disable_current_modes():
        memo: dict[int, Any] = {}
        storages: dict[int, tuple[torch.UntypedStorage, bool]] = {}
        copies: list[tuple[torch.Tensor, bool]] = []
        for tensor in _tensors_of(step):
            if id(tensor) in memo or tensor.layout is not torch.strided or tensor.device.type != "cpu":
                continue
            duplicate, known = _duplicate(tensor, storages, tape.real)
            memo[id(tensor)] = duplicate
            copies.append((duplicate, known))
        model, inputs, optimizer = copy.deepcopy((step.model, step.inputs, step.optimizer), memo)
    for duplicate, known in copies:
        tape.enter(duplicate, known=known)
    return replace(step, model=model, inputs=inputs, optimizer=optimizer)


def _duplicate(
    tensor: torch.Tensor, storages: dict[int, tuple[torch.UntypedStorage, bool]], real: bool
) -> tuple[torch.Tensor, bool]:
    key = tensor.untyped_storage()._cdata
    if key not in storages:
        nbytes = tensor.untyped_storage().nbytes()
        known = real or (not tensor.requires_grad and is_small(tensor.dtype, nbytes))
        storages[key] = (tensor.untyped_storage().clone() if known else hollow_like(tensor).untyped_storage(), known)
    storage, known = storages[key]
    duplicate = torch.empty(0, dtype=tensor.dtype).set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
    if isinstance(tensor, torch.nn.Parameter):
        duplicate = torch.nn.Parameter(duplicate, requires_grad=tensor.requires_grad)
    elif tensor.is_leaf:
        duplicate.requires_grad_(tensor.requires_grad)
    duplicate.__dict__.update(tensor.__dict__)
    return duplicate, known


def _tensors_of(step: Step) -> list[torch.Tensor]:
    """Parameters, buffers, inputs, optimizer state and gradients of a Step."""
    found: list[torch.Tensor] = []
    if isinstance(step.model, torch.nn.Module):
        found += [*step.model.parameters(), *step.model.buffers()]
    for group in getattr(step.optimizer, "param_groups", []):
        found += [tensor for tensor in group["params"] if isinstance(tensor, torch.Tensor)]
    found += [tensor.grad for tensor in found if tensor.is_leaf and tensor.grad is not None]
    _collect(step.inputs, found)
    _collect(list(getattr(step.optimizer, "state", {}).values()), found)
    return found


def _collect(value: Any, found: list[torch.Tensor]) -> None:
    if isinstance(value, torch.Tensor):
        found.append(value)
    elif isinstance(value, dict):
        _collect(list(value.values()), found)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _collect(item, found)
