"""What the storages of a running step are for: the census, taken at moments when the program tells.

Parameters, buffers and inputs are known before a step, gradients when backward ends, optimizer state when a step ends.
The first answer for a storage holds (tied weights, gradients that are views of one bucket). Cost: about 2 us a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from memfit.ir.recording import KnownStorage
from memfit.ir.trace import Category


class Census:
    """Collects ``KnownStorage`` rows. ``block_of``: address of a storage on ``device_type`` -> its block, or -1."""

    def __init__(self, block_of: Callable[[int], int], device_type: str = "cpu") -> None:
        self._block_of = block_of
        self._device_type = device_type
        self._seen: set[int] = set()
        self._outside: set[int] = set()
        self.rows: list[KnownStorage] = []

    def take(self, tensors: Iterable[tuple[str, Any]], category: Category) -> None:
        """Note the storages of named tensors; what is no tensor of the device is passed over."""
        for label, tensor in ((label, part) for label, whole in tensors for part in _dense(whole)):
            if tensor.device.type != self._device_type:
                continue
            try:
                storage = tensor.untyped_storage()
                address, nbytes = storage.data_ptr(), storage.nbytes()
            except (RuntimeError, NotImplementedError):  # a subclass without a storage of its own
                continue
            if address == 0 or nbytes == 0:
                continue
            block = self._block_of(address)
            if block in self._seen or (block < 0 and address in self._outside):
                continue
            (self._seen.add(block) if block >= 0 else self._outside.add(address))
            shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
            self.rows.append(KnownStorage(block, nbytes, category, label, shape, dtype))

    def take_model(self, model: Any) -> None:
        """Parameters and buffers."""
        if isinstance(model, torch.nn.Module):
            self.take(model.named_parameters(), Category.PARAMETERS)
            self.take(model.named_buffers(), Category.BUFFERS)

    def take_inputs(self, inputs: Any) -> None:
        """Tensors in the inputs, named by their place."""
        leaves = pytree.tree_flatten_with_path(inputs)[0]
        self.take(((pytree.keystr(path).strip("[]'."), leaf) for path, leaf in leaves), Category.INPUTS)

    def take_gradients(self, parameters: Iterable[tuple[str, Any]]) -> None:
        """Gradients of named parameters, where they are there."""
        self.take(((name, parameter.grad) for name, parameter in parameters), Category.GRADIENTS)

    def take_optimizer(self, optimizer: Any, names: dict[int, str]) -> None:
        """State of an optimizer. ``names``: of parameters by ``id``."""
        for parameter, state in getattr(optimizer, "state", {}).items():
            if not isinstance(state, dict):
                continue
            label = names.get(id(parameter), "")
            for key, value in state.items():
                for leaf in pytree.tree_leaves(value):
                    self.take([(f"{label}.{key}" if label else str(key), leaf)], Category.OPTIMIZER_STATE)


def _dense(value: Any) -> list[torch.Tensor]:
    """The dense tensors that hold a tensor's bytes: itself, or the parts of a sparse one; none for anything else."""
    if not isinstance(value, torch.Tensor):
        return []
    if value.layout is torch.sparse_coo:
        return [value._indices(), value._values()]
    if value.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [value.crow_indices(), value.col_indices(), value.values()]
    return [value] if value.layout is torch.strided else []


def named_parameters(model: Any, optimizer: Any) -> list[tuple[str, Any]]:
    """Parameters of the model, then those that only the optimizer knows (without a name)."""
    named = list(model.named_parameters()) if isinstance(model, torch.nn.Module) else []
    known = {id(parameter) for _, parameter in named}
    for group in getattr(optimizer, "param_groups", ()):
        named += [("", parameter) for parameter in group["params"] if id(parameter) not in known]
    return named
