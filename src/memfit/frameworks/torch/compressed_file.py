"""A compressed model as two files: ``NAME.safetensors`` with every tensor, ``NAME.json`` with the format of each layer.

Loading builds the model's modules with parameters that hold nothing (``without_values``), swaps in the packed modules that
the recipe names, and reads the file tensor by tensor: the original weights are never there. A tensor that several modules
share is stored once. Buffers are stored too, also those that a state dict leaves out.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from memfit.errors import TraceError
from memfit.files import write_atomically
from memfit.frameworks.torch.compressible import empty_weight, layers_of, replace_layer
from memfit.ir.tensor_file import TensorFile, write_tensors
from memfit.passes.formats import FORMATS

VERSION = 1
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_BACK = {name: dtype for dtype, name in DTYPES.items()}


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """Inside, a parameter loses its memory as soon as a module takes it; buffers keep theirs."""
    register = nn.Module.register_parameter

    def hollow(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(self, name, param)
        if param is not None and param.device.type != "meta":
            made = nn.Parameter(torch.empty_like(param, device="meta"), requires_grad=param.requires_grad)
            self._parameters[name] = made

    nn.Module.register_parameter = hollow  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer once, under its first name."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name not in found:
            found[name] = tensor.detach()
    return found


def table_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Names -> (dtype, shape) as the file's header has them.

    Raises:
        TraceError: a dtype that the format does not know.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise TraceError(name, f"a safetensors file has no dtype {tensor.dtype}")
    return {name: (DTYPES[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()}


def save(path: Path, model: nn.Module, recipe: dict[str, Any]) -> int:
    """Write both files; returns the bytes of the first. ``recipe``: as ``recipe_of`` made it."""
    tensors = tensors_of(model)

    def parts() -> Iterator[tuple[str, Any]]:
        for name, tensor in tensors.items():
            plain = tensor.cpu().contiguous().reshape(-1)
            yield name, plain.view(torch.uint8).numpy() if plain.numel() else b""

    size = write_tensors(path, table_of(tensors), parts(), {"format": "pt"})
    write_atomically(path.with_suffix(".json"), json.dumps(recipe, indent=1) + "\n")
    return size


def recipe_of(choices: Mapping[str, tuple[str, int | None]], source: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe: ``choices`` layer -> (format, values kept), and where the modules come from."""
    layers = {
        name: {"format": form} | ({} if kept is None else {"kept": kept}) for name, (form, kept) in choices.items()
    }
    return {"memfit_compressed": VERSION, "source": dict(source), "layers": layers}


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe beside a compressed file.

    Raises:
        TraceError: it is missing, no recipe, of another version, or names a format that does not exist.
    """
    where = path.with_suffix(".json")
    try:
        recipe = json.loads(where.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise TraceError(str(where), f"it is no recipe of a compressed model: {error}") from error
    if not isinstance(recipe, dict) or recipe.get("memfit_compressed") != VERSION:
        raise TraceError(str(where), f"it is no recipe of version {VERSION} of a compressed model")
    layers = recipe.get("layers")
    if not isinstance(layers, dict) or not isinstance(recipe.get("source"), dict):
        raise TraceError(str(where), "its layers or its source are missing")
    for name, row in layers.items():
        kept = row.get("kept") if isinstance(row, dict) else None
        if not isinstance(row, dict) or row.get("format") not in FORMATS or not (kept is None or type(kept) is int):
            raise TraceError(str(where), f"layer {name!r} has no known format")
    return recipe


def load_into(model: nn.Module, path: Path) -> nn.Module:
    """Give ``model``, whose parameters may hold nothing, the formats and the tensors of a compressed file, in place.

    Raises:
        TraceError: a file that is not one, or that belongs to another model.
    """
    recipe = read_recipe(path)
    layers = {layer.name: layer for layer in layers_of(model)}
    for name, row in recipe["layers"].items():
        if name not in layers:
            raise TraceError(str(path), f"the model has no layer {name!r}: it is another model")
        replace_layer(layers[name], empty_weight(layers[name], FORMATS[row["format"]], row.get("kept")))
    del layers
    owners: dict[int, list[tuple[nn.Module, str, bool]]] = {}
    for module in model.modules():
        for table, is_parameter in ((module._parameters, True), (module._buffers, False)):
            for name, tensor in table.items():
                if tensor is not None:
                    owners.setdefault(id(tensor), []).append((module, name, is_parameter))
    wanted = tensors_of_with_identity(model)
    with TensorFile(path) as file:
        missing = sorted(set(wanted) - set(file.entries))
        if missing:
            raise TraceError(str(path), f"tensor {missing[0]!r} is missing: it is another model")
        for name, tensor in wanted.items():
            entry = file.entries[name]
            if entry.shape != tuple(tensor.shape) or _BACK.get(entry.dtype) is None:
                raise TraceError(
                    str(path), f"tensor {name!r} has shape {list(entry.shape)}, the model {list(tensor.shape)}"
                )
            value = read_tensor(file, name)
            for module, attribute, is_parameter in owners[id(tensor)]:
                if is_parameter:
                    module._parameters[attribute] = nn.Parameter(value, requires_grad=False)
                else:
                    module._buffers[attribute] = value
    return model


def tensors_of_with_identity(model: nn.Module) -> dict[str, torch.Tensor]:
    """As ``tensors_of``, with the tensors that the modules hold."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found.setdefault(name, tensor)
    return found


def stored_dtype(file: TensorFile, name: str) -> torch.dtype:
    """The dtype of a tensor of a file.

    Raises:
        TraceError: one that is not read here.
    """
    entry = file.entries[name]
    if entry.dtype not in _BACK:
        raise TraceError(file.path, f"tensor {name!r} has dtype {entry.dtype}, which is not read here")
    return _BACK[entry.dtype]


def read_tensor(file: TensorFile, name: str) -> torch.Tensor:
    """A tensor of a file, in torch's own memory."""
    value = torch.empty(file.entries[name].shape, dtype=stored_dtype(file, name))
    if value.numel():
        file.read_into(name, value.reshape(-1).view(torch.uint8).numpy())
    return value
