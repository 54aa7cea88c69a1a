"""Which weights of a model can be stored in another format, and the swap of their modules.

A *layer* is one weight matrix with every place that uses it: ``nn.Linear``, ``nn.Embedding`` or transformers' ``Conv1D``,
each of exactly that class. A weight that something else holds too, and what ``nn.MultiheadAttention`` reads by itself,
stays as it is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from memfit.frameworks.torch.quantized_int4 import NativeInt4Weight
from memfit.frameworks.torch.quantized_linear import PackedEmbedding, PackedLinear, PackedWeight
from memfit.frameworks.torch.quantized_sparse import SparseWeight
from memfit.passes.formats import Format

New = PackedWeight | NativeInt4Weight | SparseWeight
"""What a weight can become."""


@dataclass(frozen=True)
class Place:
    """A module that uses the weight: ``parent.attribute`` is ``module``, of ``kind`` linear, conv1d or embedding."""

    path: str
    parent: nn.Module
    attribute: str
    module: nn.Module
    kind: str


@dataclass(frozen=True)
class Layer:
    """A weight matrix, seen as [rows, columns] with ``columns`` the input side."""

    name: str
    places: tuple[Place, ...]
    weight: nn.Parameter
    rows: int
    columns: int
    dtype: torch.dtype = field(default=torch.float32)

    @property
    def kind(self) -> str:
        """linear, conv1d or embedding, of the first place; a tied embedding counts as one."""
        return "embedding" if any(place.kind == "embedding" for place in self.places) else self.places[0].kind

    def matrix(self) -> torch.Tensor:
        """The weight as [rows, columns], a view."""
        weight = self.weight.detach()
        return weight.t() if self.places[0].kind == "conv1d" else weight

    def stored_bytes(self, form: Format, kept: int | None = None) -> int:
        """Projected bytes in another format."""
        return form.stored_bytes(self.rows, self.columns, self.dtype.itemsize, kept)


def _kind(module: nn.Module) -> str | None:
    if type(module) is nn.Linear:
        return "linear"
    if type(module) is nn.Embedding and module.max_norm is None and not module.sparse:
        return "embedding"
    if type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils":
        return "conv1d"
    return None


def layers_of(model: nn.Module) -> list[Layer]:
    """The layers of ``model`` in the order of its modules. O(modules)."""
    holders = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    found: dict[int, list[Place]] = {}
    for path, parent in model.named_modules():
        if isinstance(parent, nn.MultiheadAttention):
            continue
        for attribute, module in parent._modules.items():
            kind = None if module is None else _kind(module)
            if module is None or kind is None or module._parameters.get("weight") is None:
                continue
            whole = f"{path}.{attribute}" if path else attribute
            found.setdefault(id(module.weight), []).append(Place(whole, parent, attribute, module, kind))
    made = []
    for key, places in found.items():
        weight: Any = places[0].module.weight
        modules = {id(place.module) for place in places}
        kinds = {place.kind for place in places}
        if holders[key] != len(modules) or weight.dim() != 2 or not weight.is_floating_point():
            continue
        if "conv1d" in kinds and len(kinds) > 1:
            continue
        rows, columns = weight.shape if "conv1d" not in kinds else tuple(reversed(weight.shape))
        made.append(Layer(places[0].path, tuple(places), weight, rows, columns, weight.dtype))
    return made


def replace_layer(layer: Layer, weight: New) -> None:
    """Let every place of ``layer`` use ``weight``."""
    made: dict[int, nn.Module] = {}
    for place in layer.places:
        if id(place.module) not in made:
            if place.kind == "embedding":
                new: nn.Module = PackedEmbedding(weight, getattr(place.module, "padding_idx", None))
            else:
                bias: Any = place.module._parameters.get("bias")
                new = PackedLinear(weight, bias, transposed=place.kind == "conv1d")
            made[id(place.module)] = new.train(place.module.training)
        setattr(place.parent, place.attribute, made[id(place.module)])


def restore_layer(layer: Layer) -> None:
    """Put the original modules back."""
    for place in layer.places:
        setattr(place.parent, place.attribute, place.module)


def empty_weight(layer: Layer, form: Format, kept: int | None, device: str = "meta") -> New:
    """Storage for ``layer`` in ``form``, without values."""
    if form.kind == "int":
        return PackedWeight(layer.rows, layer.columns, form.bits, form.group, layer.dtype, device=device)
    if form.kind == "torch":
        return NativeInt4Weight(layer.rows, layer.columns, form.group, device=device)
    quads = layer.rows * -(-layer.columns // 4) * 2
    stored = quads if kept is None else kept
    return SparseWeight(form.kind, layer.rows, layer.columns, stored, layer.dtype, device=device)


def takes(layer: Layer, form: Format) -> bool:
    """Whether ``layer`` can be stored in ``form``: looked-up tables have no sparse form, torch's own is choosy."""
    if form.kind == "torch":
        fits = NativeInt4Weight.fits(layer.rows, layer.columns, form.group, layer.dtype)
        return fits and layer.kind != "embedding"
    return layer.kind != "embedding" or form.kind in ("int", "keep")
