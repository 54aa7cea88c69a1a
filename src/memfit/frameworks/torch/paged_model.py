"""Puts paged weights in the place of a model's parameters, after the files were held against the model.

Every parameter needs a tensor of its name, shape and dtype in the files (a tied one needs one of its names; a checkpoint of
the model without its head, or with one more prefix, is recognised). Buffers that the files hold are read once and stay.
A model may come without memory behind its parameters (``without_memory``), so that one larger than the memory can be built.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from memfit.errors import WeightFileError
from memfit.frameworks.torch.paged_store import DTYPES, read_tensor
from memfit.frameworks.torch.paged_weight import PagedWeight, WeightStore
from memfit.ir.safetensors_header import StoredTensor
from memfit.runtime.weight_file import WeightFiles, described

LARGE = 1 << 24
"""Bytes: tensors that a model makes while it is built get no memory from this size on; parameters never do."""
_LAYERS = os.path.dirname(torch.nn.modules.__file__)
_FACTORIES = ("empty", "zeros", "ones", "full", "rand", "randn", "empty_strided", "normal")


@dataclass(frozen=True)
class Place:
    """One parameter: the modules and names that hold it, and the tensor of the files that it is."""

    holders: tuple[tuple[torch.nn.Module, str], ...]
    names: tuple[str, ...]
    stored: StoredTensor
    file: int


@contextlib.contextmanager
def without_memory() -> Iterator[None]:
    """Inside, modules are built with parameters that have no memory (meta tensors); small buffers are real."""
    register = torch.nn.Module.register_parameter

    def register_without(module: torch.nn.Module, name: str, parameter: Any) -> None:
        if isinstance(parameter, torch.nn.Parameter) and parameter.device.type != "meta":
            parameter = torch.nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
        register(module, name, parameter)

    torch.nn.Module.register_parameter = register_without  # type: ignore[method-assign]
    try:
        with _LargeWithoutMemory():
            yield
    finally:
        torch.nn.Module.register_parameter = register  # type: ignore[method-assign]


class _LargeWithoutMemory(torch.overrides.TorchFunctionMode):
    """Sends large new tensors to the meta device, and the uninitialised ones of PyTorch's own layers: their parameters.

    A parameter that is made and let go again leaves a hole in the heap that small objects settle in, so that the heap grows
    by every one of them; a limit on memory counts that.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        own = func is torch.empty and sys._getframe(1).f_code.co_filename.startswith(_LAYERS)
        if own or (getattr(func, "__name__", "") in _FACTORIES and _is_large(args, kwargs)):
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _is_large(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    sizes = kwargs.get("size", args[0] if args and isinstance(args[0], (tuple, list)) else args)
    count = 1
    for extent in sizes if isinstance(sizes, (tuple, list)) else (sizes,):
        if not isinstance(extent, int):
            return False
        count *= extent
    dtype = kwargs.get("dtype") or torch.get_default_dtype()
    return bool(count * dtype.itemsize >= LARGE)


def places_of(model: torch.nn.Module, files: WeightFiles, *, strict: bool = True) -> list[Place]:
    """The tensor of the files for each parameter of ``model``.

    Args:
        strict: refuse tensors of the files that the model has no place for.

    Raises:
        WeightFileError: weights are missing, left over, or of another shape or dtype than the model's.
    """
    held: dict[int, list[tuple[torch.nn.Module, str, str]]] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, parameter in module._parameters.items():
            if parameter is not None:
                held.setdefault(id(parameter), []).append((module, name, f"{prefix}.{name}" if prefix else name))
    state = model.state_dict(keep_vars=True)
    wanted = {full for entries in held.values() for _, _, full in entries} | set(state)
    rename = _renaming(wanted, files, str(getattr(model, "base_model_prefix", "") or ""))
    by_name = {rename(name): name for name in files.tensors}
    places, missing = [], []
    for entries in held.values():
        names = tuple(dict.fromkeys(full for _, _, full in entries))
        found = next((by_name[name] for name in names if name in by_name), None)
        if found is None:
            missing.append(names[0])
            continue
        file, stored = files.tensors[found]
        module, name, _ = entries[0]
        parameter = module._parameters[name]
        assert parameter is not None
        _check(files, names[0], stored, parameter)
        holders = tuple(dict.fromkeys((module, name) for module, name, _ in entries))
        places.append(Place(holders, names, stored, file))
    if missing:
        raise WeightFileError(
            files.path, f"{len(missing)} of the model's {len(held)} weights are not in it: {described(missing)}",
            "is it the file of this model?",
        )  # fmt: skip
    ignored = [re.compile(pattern) for pattern in getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()]
    extra = [name for name in by_name if name not in wanted and not any(p.search(name) for p in ignored)]
    if extra and strict:
        raise WeightFileError(
            files.path, f"the model has no place for {len(extra)} of its {len(files.tensors)} tensors: {described(extra)}",
            "is it the file of this model? strict=False (--allow-extra) leaves them unread",
        )  # fmt: skip
    _fill_buffers(model, state, files, by_name)
    return places


def _renaming(wanted: set[str], files: WeightFiles, base: str) -> Any:
    """How names of the files become names of the model: as they are, or with the base model's prefix more or less."""
    if not base or any(name in wanted for name in files.tensors):
        return lambda name: name
    if any(f"{base}.{name}" in wanted for name in files.tensors):
        return lambda name: f"{base}.{name}"
    return lambda name: name.removeprefix(f"{base}.")


def _check(files: WeightFiles, name: str, stored: StoredTensor, tensor: torch.Tensor) -> None:
    dtype = DTYPES.get(stored.dtype)
    if dtype is None:
        raise WeightFileError(files.path, f"weight {name!r} is {stored.dtype}, which PyTorch has no dtype for")
    if tuple(tensor.shape) != stored.shape:
        raise WeightFileError(
            files.path, f"weight {name!r} has the shape {list(stored.shape)}, the model wants {list(tensor.shape)}",
            "is it the file of this model?",
        )  # fmt: skip
    if tensor.dtype is not dtype:
        raise WeightFileError(
            files.path, f"weight {name!r} is {str(dtype)[6:]}, the model wants {str(tensor.dtype)[6:]}",
            "build the model in the dtype of the file",
        )  # fmt: skip


def _fill_buffers(model: torch.nn.Module, state: dict[str, Any], files: WeightFiles, by_name: dict[str, str]) -> None:
    for prefix, module in model.named_modules():
        for name, buffer in list(module._buffers.items()):
            full = f"{prefix}.{name}" if prefix else name
            if buffer is None:
                continue
            if full in by_name and full in state:
                stored = files.tensors[by_name[full]][1]
                _check(files, full, stored, buffer)
                module._buffers[name] = read_tensor(files, by_name[full])
            elif buffer.device.type == "meta":
                raise WeightFileError(
                    files.path, f"buffer {full!r} is not in it, and the model was built without memory for it",
                    "build the model on the CPU, or save its buffers too",
                )  # fmt: skip


def page_parameters(model: torch.nn.Module, places: list[Place], store: WeightStore) -> None:
    """Put a paged weight into every place; what stood there is let go."""
    for weight, place in enumerate(places):
        paged = PagedWeight(place.stored.shape, DTYPES[place.stored.dtype], weight, place.names[0], store)
        for module, name in place.holders:
            if isinstance(module, torch.nn.RNNBase):
                setattr(module, name, paged)
            else:
                module._parameters[name] = paged  # type: ignore[assignment]


def store_of(model: torch.nn.Module, store: WeightStore) -> None:
    """Let all paged weights of ``model`` be served by ``store`` from now on."""
    for parameter in model.parameters():
        if isinstance(parameter, PagedWeight):
            parameter.store = store
