"""Reassociating lever: language-model head and cross entropy together, rows in chunks, so that full logits never exist.

The head's forward returns ``DeferredLogits``: a tensor without storage that remembers what it would be computed from.
Reshapes, slices of rows, casts and transpositions move to the hidden states; ``cross_entropy`` on it computes loss and
gradients chunk by chunk in one pass; everything else computes the logits after all, as the plain head would::

    hidden (rows, width) -> [chunk: logits -> loss += ; softmax - onehot -> hidden gradient, weight gradient +=] ...

Bytes at the peak: rows * classes (several times over) become chunk * classes, plus the head's gradient, made
early. Losses and gradients are those of the plain step up to the order of sums over chunks. The idea is that of Liger
Kernel (Hsu et al. 2024, arXiv:2410.10989, section 3.2) and Cut Cross-Entropy (Wijmans et al. 2024, arXiv:2411.09009);
chunk size as in Liger: rows * width / classes, so that a chunk's logits are about as large as the hidden states.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from memfit.frameworks.torch.steps import autocast_of, call_model, loss_of
from memfit.ir.step import Step

_MOVED_BY_ROWS = {"contiguous", "clone"}
_CASTS = {"float": torch.float32, "double": torch.float64, "half": torch.float16, "bfloat16": torch.bfloat16}


class DeferredLogits(torch.Tensor):
    """``linear(hidden, weight, bias)``, not computed yet. Use ``computed`` for the real tensor."""

    hidden: torch.Tensor
    head: tuple[torch.Tensor, torch.Tensor | None]
    casts: tuple[torch.dtype, ...]
    classes_second: bool
    rows: int | None
    used: Callable[[], None]
    source: DeferredLogits | None
    path: tuple[tuple[Any, tuple[Any, ...], dict[str, Any]], ...]
    logits: torch.Tensor | None

    @staticmethod
    def of(
        hidden: torch.Tensor, head: tuple[torch.Tensor, torch.Tensor | None], casts: tuple[torch.dtype, ...] = (),
        classes_second: bool = False, rows: int | None = None, used: Callable[[], None] = lambda: None,
    ) -> DeferredLogits:  # fmt: skip
        """Logits of ``hidden`` (..., width) under ``head`` (weight, bias), then cast to each of ``casts`` in turn."""
        shape = [*hidden.shape[:-1], head[0].shape[0]]
        if classes_second:
            shape = [shape[0], shape[-1], *shape[1:-1]]
        kind = hidden.device.type
        plain = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        made: DeferredLogits = torch.Tensor._make_wrapper_subclass(
            DeferredLogits, shape, dtype=casts[-1] if casts else plain, device=hidden.device
        )
        made.hidden, made.head, made.casts, made.classes_second = hidden, head, casts, classes_second
        made.rows, made.used = rows, used
        made.source, made.path, made.logits = None, (), None
        return made

    def _with(
        self, hidden: torch.Tensor, casts: tuple[torch.dtype, ...] = (), classes_second: bool = False
    ) -> DeferredLogits:
        return DeferredLogits.of(hidden, self.head, self.casts + casts, classes_second, self.rows, self.used)

    def computed(self) -> torch.Tensor:
        """The logits, computed once as the head itself would, then taken the way that the program took."""
        if self.logits is None:
            if self.source is None:
                self.logits = functional.linear(self.hidden, *self.head)
            else:
                self.logits = self.source.computed()
                for func, args, kwargs in self.path:
                    self.logits = func(self.logits, *args, **kwargs)
        return self.logits

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        with torch._C.DisableTorchFunctionSubclass():
            this = args[0] if args and isinstance(args[0], DeferredLogits) else kwargs.get("input")
            if name == "__get__" or name in ("dim", "size", "numel", "is_floating_point", "__len__", "stride"):
                owner = getattr(getattr(func, "__self__", None), "__name__", "")
                if owner not in ("data", "grad", "grad_fn", "H", "mH", "mT", "T", "real", "imag", "requires_grad"):
                    return func(*args, **kwargs)
            if isinstance(this, DeferredLogits):
                if this.logits is None and func is functional.cross_entropy:
                    loss = _cross_entropy(this, args, kwargs)
                    if loss is not None:
                        return loss
                moved = _moved(this, name, args[1:], kwargs)
                if moved is not None:
                    if moved is not this:
                        moved.source = this if this.source is None else this.source
                        moved.path = (*this.path, (func, args[1:], kwargs))
                    return moved
            args, kwargs = pytree.tree_map(_computed, (tuple(args), kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = pytree.tree_map(_computed, (tuple(args), kwargs or {}))
        return func(*args, **kwargs)


def _computed(value: Any) -> Any:
    return value.computed() if isinstance(value, DeferredLogits) else value


def _moved(this: DeferredLogits, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DeferredLogits | None:
    """The op ``name`` done to the hidden states instead, or None where that is not the same."""
    hidden, classes = this.hidden, this.head[0].shape[0]
    if name in _CASTS and not args and not kwargs:
        return this._with(hidden, (_CASTS[name],), this.classes_second)
    if name == "to" and len(args) == 1 and not kwargs:
        if isinstance(args[0], torch.dtype):
            return this._with(hidden, (args[0],), this.classes_second)
        return (
            this
            if isinstance(args[0], (str, torch.device)) and torch.device(args[0]).type == hidden.device.type
            else None
        )
    if name in _MOVED_BY_ROWS and not kwargs and not args:
        return this
    if this.classes_second or kwargs:
        return None
    if name in ("view", "reshape") and args:
        shape = list(args[0] if isinstance(args[0], (tuple, list, torch.Size)) else args)
        if all(isinstance(n, int) for n in shape) and shape.count(-1) <= 1:
            if -1 in shape:
                known = -math.prod(shape)
                if known <= 0 or this.numel() % known:
                    return None
                shape[shape.index(-1)] = this.numel() // known
            if shape[-1] == classes:
                return this._with(hidden.reshape(*shape[:-1], hidden.shape[-1]))
        return None
    if name == "flatten" and args and len(args) == 2 and args[1] % this.dim() < this.dim() - 1:
        return this._with(hidden.flatten(*args))
    if name == "__getitem__" and _rows_only(args[0], this.dim()):
        return this._with(hidden[args[0]])
    if name in ("transpose", "swapaxes") and this.dim() == 3 and {a % 3 for a in args if isinstance(a, int)} == {1, 2}:
        return this._with(hidden, classes_second=True)
    if name == "permute" and tuple(args[0] if isinstance(args[0], (tuple, list)) else args) == (0, 2, 1):
        return this._with(hidden, classes_second=True)
    return None


def _rows_only(index: Any, dims: int) -> bool:
    """Whether an index leaves the last dimension whole."""
    parts = index if isinstance(index, tuple) else (index,)
    if any(part is None or isinstance(part, (list, torch.Tensor)) for part in parts):
        tensors = [part for part in parts if isinstance(part, torch.Tensor)]
        return len(parts) == 1 and len(tensors) == 1 and (tensors[0].dim() < dims or tensors[0].dtype != torch.bool)
    if Ellipsis in parts:
        return bool(parts[-1] == slice(None)) if parts[-1] is not Ellipsis else True
    return len(parts) < dims or (len(parts) == dims and parts[-1] == slice(None))


def _cross_entropy(this: DeferredLogits, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """Loss chunk by chunk, or None where these arguments are beyond it."""
    names = ("input", "target", "weight", "size_average", "ignore_index", "reduce", "reduction", "label_smoothing")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    target = given["target"]
    rows = this.hidden.shape[:-1]
    if (
        given.get("weight") is not None or given.get("size_average") is not None or given.get("reduce") is not None
        or given.get("label_smoothing", 0.0) or given.get("reduction", "mean") not in ("mean", "sum")
        or target.is_floating_point() or target.shape != rows or (len(rows) > 1 and not this.classes_second)
    ):  # fmt: skip
        return None
    this.used()
    hidden = this.hidden.reshape(-1, this.hidden.shape[-1])
    count = this.rows or chunk_rows(len(hidden), hidden.shape[-1], this.head[0].shape[0])
    mean = given.get("reduction", "mean") == "mean"
    loss: torch.Tensor = _ChunkedLoss.apply(
        hidden, *this.head, target.reshape(-1), count, given.get("ignore_index", -100), mean, this.casts
    )
    return loss


def chunk_rows(rows: int, width: int, classes: int) -> int:
    """Rows of a chunk: its logits are about as large as the hidden states, at least 8 rows."""
    return max(8, -(-rows // max(1, -(-classes // width))))


class _ChunkedLoss(torch.autograd.Function):
    """Cross entropy of a linear layer with class indices; the gradients are made in forward and scaled in backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, target: torch.Tensor,
        rows: int, ignored: int, mean: bool, casts: tuple[torch.dtype, ...],
    ) -> torch.Tensor:  # fmt: skip
        wants = ctx.needs_input_grad[:3]
        counted = target != ignored
        total = counted.sum()
        scale = total if mean else torch.ones_like(total)
        made = [
            torch.zeros_like(t) if t is not None and want else None
            for t, want in zip((hidden, weight, bias), wants, strict=True)
        ]
        loss = None
        for start in range(0, max(1, len(hidden)), rows):
            span = slice(start, start + rows)
            logits = functional.linear(hidden[span], weight, bias)
            plain = logits.dtype
            for dtype in casts:
                logits = logits.to(dtype)
            part = functional.cross_entropy(logits, target[span], ignore_index=ignored, reduction="sum")
            loss = part if loss is None else loss + part
            if any(wants):
                chosen, valid = target[span].clamp(0, logits.shape[-1] - 1)[:, None], counted[span][:, None]
                slope = torch.softmax(logits, dim=-1)
                del logits
                slope.scatter_add_(1, chosen, torch.full_like(chosen, -1, dtype=slope.dtype))
                slope.mul_(valid / scale.to(slope.dtype))
                slope = slope.to(plain)
                if made[0] is not None:
                    made[0][span] = slope @ weight.to(plain)
                if made[1] is not None:
                    made[1] += (slope.t() @ hidden[span].to(plain)).to(made[1].dtype)
                if made[2] is not None:
                    made[2] += slope.sum(0)
        assert loss is not None
        ctx.made = made
        return loss / scale.to(loss.dtype)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> Any:  # type: ignore[override]
        if ctx.made is None:
            raise RuntimeError("backward a second time through a chunked loss, whose gradients were handed out already")
        made, ctx.made = ctx.made, None
        for gradient in made:
            if gradient is not None:
                gradient.mul_(slope.to(gradient.dtype))
        return (*made, None, None, None, None, None)


@contextlib.contextmanager
def chunked_heads(model: nn.Module, names: Iterable[str], rows: int | None = None) -> Iterator[dict[str, int]]:
    """The ``nn.Linear`` submodules ``names`` defer their outputs inside; yields how often each met a cross entropy.

    Args:
        model: the model.
        names: of ``nn.Linear`` submodules.
        rows: rows of a chunk; None: ``chunk_rows``.
    """
    met = dict.fromkeys(names, 0)
    with contextlib.ExitStack() as stack:
        for name in met:
            module = model.get_submodule(name)
            stack.callback(_restore, module, module.__dict__.get("forward"))
            module.__dict__["forward"] = _deferring(module, name, rows, met)
        yield met


def _deferring(module: nn.Module, name: str, rows: int | None, met: dict[str, int]) -> Callable[[torch.Tensor], Any]:
    def used() -> None:
        met[name] += 1

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        return DeferredLogits.of(hidden, (module.weight, module.bias), rows=rows, used=used)

    return forward


def _restore(module: nn.Module, own: Any) -> None:
    if own is None:
        module.__dict__.pop("forward", None)
    else:
        module.__dict__["forward"] = own


def find_heads(step: Step) -> tuple[str, ...]:
    """Names of the ``nn.Linear`` layers whose output goes to a cross entropy and nowhere else that matters.

    Found by one forward without gradients in which every plain ``nn.Linear`` defers. The caller puts random state and
    buffers back. A step that runs its own loop, or fails, has none.
    """
    if step.run is not None or not isinstance(step.model, nn.Module):
        return ()
    names = [name for name, module in step.model.named_modules() if name and type(module) is nn.Linear]
    try:
        with (
            chunked_heads(step.model, names) as met,
            torch.no_grad(),
            autocast_of(step),
            contextlib.suppress(Exception),
        ):
            output = call_model(step.model, step.inputs)
            with contextlib.suppress(Exception):
                loss_of(step, output)
    except RuntimeError:
        return ()
    return tuple(name for name, count in met.items() if count)
