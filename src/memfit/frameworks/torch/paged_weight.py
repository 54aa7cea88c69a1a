"""A parameter whose bytes are in a file: every operation that takes it gets the real tensor, for as long as it needs it.

``PagedWeight`` is a tensor without storage that answers for its shape, dtype and device. An operation of PyTorch that takes
one arrives at ``__torch_function__``, above every decision that PyTorch takes by looking at a tensor; there plain tensors
over the pager's memory take its place, so that the same kernels run on the same bytes. What shows a weight afterwards (a
view, or the weight itself) keeps it in memory: the storage's own count of holders says when it may leave.

A lookup of rows (``embedding``) reads only the rows it needs, from the file. Some modules look whether a parameter is of a
class of its own and then leave their fast path; those get plain parameters while they run (``whole``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch.nn import functional

from memfit.errors import MemfitError

_LOOKS = frozenset({
    "size", "dim", "numel", "nelement", "stride", "element_size", "is_floating_point", "is_complex", "is_signed",
    "is_contiguous", "ndimension", "requires_grad_", "get_device", "__len__", "storage_offset", "register_hook",
    "__hash__", "type_as", "is_inference", "is_same_size", "is_shared", "is_pinned",
})  # fmt: skip
"""Functions that look at a tensor and not at its values."""
_VALUES = frozenset({"data", "T", "mT", "H", "mH", "real", "imag"})
"""Attributes of a tensor that show its values."""


class WeightStore(Protocol):
    """What serves the weights: a recorder before the run, the pager during it."""

    def lend(self, weights: tuple[int, ...], use: Callable[[dict[int, torch.Tensor]], Any]) -> Any:
        """What ``use`` makes of the tensors of ``weights``, which are all there meanwhile."""

    def rows(self, weight: int, ids: torch.Tensor) -> torch.Tensor:
        """Rows ``ids`` (ascending, one dimension) of a weight of two dimensions."""


class PagedWeight(torch.Tensor):
    """See the module text. ``weight``: its number in the store."""

    _is_param = True
    weight: int
    label: str
    store: WeightStore

    @staticmethod
    def __new__(
        cls, shape: Sequence[int], dtype: torch.dtype, weight: int, label: str, store: WeightStore
    ) -> PagedWeight:
        """A weight of the CPU, contiguous, that requires no gradient."""
        made: PagedWeight = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, tuple(shape), dtype=dtype, device="cpu", requires_grad=False
        )
        made.weight, made.label, made.store = weight, label, store
        return made

    def __init__(self, *arguments: Any) -> None:
        """Everything happens in ``__new__``."""

    def __repr__(self, **options: Any) -> str:  # type: ignore[override]
        return f"PagedWeight({self.label!r}, {tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer what needs no values; run everything else on the real tensors."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _LOOKS or (name in ("__get__", "__set__") and _attribute(func) not in _VALUES):
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if name == "__set__":
            return _assign(func, args)
        found: dict[int, PagedWeight] = {}
        _collect(args, found)
        _collect(kwargs, found)
        first = next(iter(found.values()))
        if func is functional.embedding:
            looked_up = _embedding(*args, **kwargs)
            if looked_up is not None:
                return looked_up
        return first.store.lend(
            tuple(sorted(found)), lambda real: func(*_replaced(args, real), **_replaced(kwargs, real))
        )

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What comes in below (from C++ code that takes parameters itself) runs on the real tensors too."""
        found: dict[int, PagedWeight] = {}
        _collect(args, found)
        _collect(kwargs or {}, found)
        first = next(iter(found.values()))
        return first.store.lend(
            tuple(sorted(found)), lambda real: func(*_replaced(args, real), **_replaced(kwargs or {}, real))
        )


def _attribute(func: Any) -> str:
    return str(getattr(getattr(func, "__self__", None), "__name__", ""))


def _assign(func: Any, args: tuple[Any, ...]) -> None:
    """Setting ``.data``: allowed where it changes nothing, as ``module.to("cpu")`` does."""
    weight, value = args[0], args[1]
    if isinstance(value, torch.Tensor) and (value.dtype, value.device, value.shape) == (
        weight.dtype, weight.device, weight.shape,
    ):  # fmt: skip
        return
    raise MemfitError(
        f"weight {getattr(weight, 'label', '?')!r} is paged from a file and cannot be converted, moved or replaced; convert "
        "the file instead, and page the model last"
    )


def _collect(value: Any, found: dict[int, PagedWeight]) -> None:
    if isinstance(value, PagedWeight):
        found[value.weight] = value
    elif isinstance(value, (list, tuple)):
        for item in value:
            _collect(item, found)
    elif isinstance(value, dict):
        for item in value.values():
            _collect(item, found)


def _replaced(value: Any, real: dict[int, torch.Tensor]) -> Any:
    if isinstance(value, PagedWeight):
        return real[value.weight]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[_replaced(item, real) for item in value])
    if isinstance(value, (list, tuple)):
        return type(value)([_replaced(item, real) for item in value])
    if isinstance(value, dict):
        return {key: _replaced(item, real) for key, item in value.items()}
    return value


def _embedding(
    input: torch.Tensor, weight: Any, padding_idx: int | None = None, max_norm: float | None = None, *_: Any, **__: Any
) -> torch.Tensor | None:
    """The rows of a paged table, or None where more than a lookup is asked for."""
    if max_norm is not None or not isinstance(weight, PagedWeight) or isinstance(input, PagedWeight):
        return None
    ids, inverse = torch.unique(input, return_inverse=True)
    if weight.dim() != 2 or ids.device.type != "cpu":
        return None
    return functional.embedding(inverse, weight.store.rows(weight.weight, ids))


_WHOLE = (torch.nn.MultiheadAttention, torch.nn.TransformerEncoderLayer)


def whole(model: torch.nn.Module) -> None:
    """Let modules whose fast path looks at the class of their parameters see plain ones while they run."""
    covered: set[torch.nn.Module] = set()
    for module in model.modules():
        if isinstance(module, torch.nn.TransformerEncoder) and len(module.layers):
            _run_whole(module, [module.layers[0]])
        elif isinstance(module, _WHOLE) and module not in covered:
            covered.update(module.modules())
            _run_whole(module, [module])


def _run_whole(module: torch.nn.Module, parts: Sequence[torch.nn.Module]) -> None:
    inner = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        places = [
            (part, name, parameter)
            for top in parts
            for part in top.modules()
            for name, parameter in part._parameters.items()
            if isinstance(parameter, PagedWeight)
        ]
        if not places:
            return inner(*args, **kwargs)

        def run(real: dict[int, torch.Tensor]) -> Any:
            try:
                for part, name, parameter in places:
                    part._parameters[name] = torch.nn.Parameter(real[parameter.weight], requires_grad=False)
                return inner(*args, **kwargs)
            finally:
                for part, name, parameter in places:
                    part._parameters[name] = parameter

        return places[0][2].store.lend(tuple(sorted({parameter.weight for _, _, parameter in places})), run)

    module.forward = forward  # type: ignore[method-assign]
