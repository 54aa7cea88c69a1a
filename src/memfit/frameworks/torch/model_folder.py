"""A folder of safetensors files with a ``config.json``: its model built without weights, and quantised while it loads.

Tensors are read one at a time, and what is packed some rows at a time (a transposed ``Conv1D`` and sparse forms are read
whole): no layer is in memory in full width. The class comes from the configuration's ``architectures``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from memfit.errors import MissingFrameworkError, TargetError
from memfit.frameworks.torch.compressed_file import read_tensor, stored_dtype, without_values
from memfit.frameworks.torch.compressible import Layer, layers_of, replace_layer
from memfit.frameworks.torch.compression_error import Statistics, converted
from memfit.frameworks.torch.quantized_linear import PackedWeight
from memfit.ir.tensor_file import TensorFile
from memfit.passes.formats import Format
from memfit.passes.quantize import quantize_parts


def skeleton(folder: Path) -> nn.Module:
    """The model that ``config.json`` describes, in evaluation mode, its parameters without memory.

    Raises:
        TargetError: no configuration, or an architecture that transformers does not have.
        MissingFrameworkError: transformers is not installed.
    """
    where = folder / "config.json"
    try:
        names = json.loads(where.read_text()).get("architectures") or []
    except (OSError, ValueError, AttributeError) as error:
        raise TargetError(
            str(folder), f"it has no readable config.json ({error})", "a folder as transformers saves it"
        ) from error
    try:
        import transformers
    except ImportError as error:
        raise MissingFrameworkError("transformers", "examples") from error
    kind = getattr(transformers, str(names[0]), None) if names else None
    if kind is None or not hasattr(kind, "from_pretrained"):
        raise TargetError(str(folder), f"its config.json names the architecture {names}", "one that transformers knows")
    config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
    with without_values():
        model: nn.Module = kind(config)
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    return model.eval()


class Checkpoint:
    """All tensors of a folder's files, by the model's names (a base prefix more or less does not matter)."""

    def __init__(self, folder: Path, model: nn.Module) -> None:
        paths = sorted(folder.glob("*.safetensors"))
        if not paths:
            raise TargetError(str(folder), "there is no .safetensors file in it")
        self._files = [TensorFile(path) for path in paths]
        self._where = {name: file for file in self._files for name in file.entries}
        self._prefix = str(getattr(model, "base_model_prefix", "")) + "."
        self.folder = folder

    def _stored(self, names: list[str]) -> str | None:
        for name in names:
            for form in (name, self._prefix + name, name.removeprefix(self._prefix)):
                if form in self._where:
                    return form
        return None

    def tensor(self, names: list[str], shape: tuple[int, ...]) -> torch.Tensor:
        """The tensor that is stored under one of ``names``.

        Raises:
            TargetError: there is none, or of another shape.
        """
        stored = self._stored(names)
        if stored is None:
            raise TargetError(str(self.folder), f"tensor {names[0]!r} is missing in its files")
        value = read_tensor(self._where[stored], stored)
        if tuple(value.shape) != shape:
            raise TargetError(
                str(self.folder), f"tensor {names[0]!r} has shape {tuple(value.shape)}, the model {tuple(shape)}"
            )
        return value

    def rows_of(self, names: list[str], shape: tuple[int, ...]) -> tuple[Callable[[int, int], Any], torch.dtype]:
        """A reader of some rows of a matrix as float32, and the dtype stored. The matrix is never in memory.

        Raises:
            TargetError: there is none, or of another shape; (of the reader) values that are no finite numbers.
        """
        stored = self._stored(names)
        if stored is None or self._where[stored].entries[stored].shape != shape:
            self.tensor(names, shape)
        assert stored is not None
        file = self._where[stored]
        entry = file.entries[stored]
        dtype = stored_dtype(file, stored)

        def read(first: int, last: int) -> Any:
            part = torch.empty(last - first, shape[1], dtype=dtype)
            file.read_into(stored, part.view(-1).view(torch.uint8).numpy(), first * (entry.nbytes // shape[0]))
            if not bool(torch.isfinite(part.sum())) and not bool(torch.isfinite(part).all()):
                raise TargetError(str(self.folder), f"the weight {stored} holds values that are no finite numbers")
            return part.float().numpy()

        return read, dtype

    def has(self, names: list[str]) -> bool:
        """Whether one of ``names`` is stored."""
        return self._stored(names) is not None

    def close(self) -> None:
        """Close all files."""
        for file in self._files:
            file.close()


def load_folder(
    folder: Path, choose: Callable[[Layer], tuple[Format, float]] | None = None,
    seen: Mapping[str, Statistics] | None = None, progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[nn.Module, dict[str, tuple[str, int | None]]]:  # fmt: skip
    """The folder's model, each layer in the format that ``choose`` gives (format, share of zeros); all kept without it.

    Returns:
        the model, and layer -> (format, values kept) of those that changed.

    Raises:
        TargetError: a folder that cannot be used.
    Cost: peak memory of the final model and one layer.
    """
    model = skeleton(folder)
    checkpoint = Checkpoint(folder, model)
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    chosen: dict[str, tuple[str, int | None]] = {}
    layers = layers_of(model) if choose is not None else []
    for number, layer in enumerate(layers):
        assert choose is not None
        form, zeros = choose(layer)
        if form.kind == "keep":
            continue
        statistics = (seen or {}).get(layer.name)
        if form.kind == "int" and layer.places[0].kind != "conv1d":
            read, dtype = checkpoint.rows_of(names[id(layer.weight)], (layer.rows, layer.columns))
            importance = None if statistics is None else statistics.squares
            packed = quantize_parts(read, layer.rows, layer.columns, form.bits, form.group, importance)
            chosen[layer.name] = (form.name, None)
            replace_layer(layer, PackedWeight.of(packed, dtype))
            progress(number + 1, len(layers))
            continue
        value = checkpoint.tensor(names[id(layer.weight)], tuple(layer.weight.shape)).detach()
        filled = Layer(layer.name, layer.places, nn.Parameter(value, requires_grad=False), layer.rows, layer.columns,
                       value.dtype)  # fmt: skip
        new = converted(filled, form, statistics, zeros)
        chosen[layer.name] = (form.name, getattr(new, "kept", None))
        del value, filled
        replace_layer(layer, new)
        progress(number + 1, len(layers))
    _fill(model, checkpoint, names)
    checkpoint.close()
    return model, chosen


def _fill(model: nn.Module, checkpoint: Checkpoint, names: dict[int, list[str]]) -> None:
    filled: dict[int, nn.Parameter] = {}
    for path, module in model.named_modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is None or parameter.device.type != "meta":
                continue
            if id(parameter) not in filled:
                # The bias of a packed layer is a new parameter under the old name.
                known = names.get(id(parameter), [f"{path}.{name}" if path else name])
                filled[id(parameter)] = nn.Parameter(
                    checkpoint.tensor(known, tuple(parameter.shape)), requires_grad=False
                )
            module._parameters[name] = filled[id(parameter)]
        for name, buffer in list(module._buffers.items()):
            whole = [f"{path}.{name}" if path else name]
            if buffer is not None and checkpoint.has(whole):
                module._buffers[name] = checkpoint.tensor(whole, tuple(buffer.shape))


def source_of(folder: Path) -> dict[str, Any]:
    """What a recipe keeps to build the model again: the configuration itself."""
    return {"kind": "folder", "config": json.loads((folder / "config.json").read_text())}
