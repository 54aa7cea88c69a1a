"""Lossy levers, only on request: bfloat16 compute, 8- and 4-bit Adam state, 8-bit saved activations.

Each changes results; ``measure_error`` says by how much, against the exact step from the same state. Bytes:

    autocast      activations of matrix products and what follows halve
    optimizer     8 bytes of Adam state per parameter become 2 or 1 (torchao; tensors of at least 4096 values)
    activations   saved float tensors become one byte a value and a float32 scale per row (last dimension)

The optimizers are torchao's ``AdamW8bit`` and ``AdamW4bit`` (Dettmers et al. 2022, arXiv:2110.02861; Li et al. 2023,
arXiv:2309.01507); packing activations per row follows ActNN (Chen et al. 2021, arXiv:2104.14129) at one width for all.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree

from memfit.errors import MemfitError, MissingFrameworkError
from memfit.frameworks.torch.steps import run_step
from memfit.ir.step import Step

_SMALLEST = 1024
_SETTINGS = ("lr", "betas", "eps", "weight_decay", "amsgrad")  # of a group, that both kinds of optimizer have


@dataclass(frozen=True, slots=True)
class LowBit:
    """Which lossy levers are on.

    Attributes:
        autocast: dtype name, ``bfloat16``, or None for the step's own.
        optimizer_bits: 32 (as it is), 8 or 4.
        activation_bits: 32 (as they are) or 8.
    """

    autocast: str | None = None
    optimizer_bits: int = 32
    activation_bits: int = 32

    def lowered(self, step: Step) -> Step:
        """The step with the dtype and the optimizer of this; its own optimizer is left as it is, and not used.

        Raises:
            MissingFrameworkError: torchao is not installed.
            MemfitError: no low-bit form of this optimizer.
        """
        if self.autocast is not None:
            step = replace(step, autocast=self.autocast)
        if self.optimizer_bits < 32:
            step = replace(step, optimizer=low_bit_optimizer(step.optimizer, self.optimizer_bits))
        return step

    def saving(self, step: Step) -> contextlib.AbstractContextManager[Any]:
        """The context to run the step in."""
        return low_bit_activations(step.model, step.inputs) if self.activation_bits < 32 else contextlib.nullcontext()


def low_bit_optimizer(optimizer: Any, bits: int) -> Any:
    """A torchao optimizer over the same parameters with the same settings and, where there is one, the same state.

    Args:
        optimizer: ``torch.optim.Adam`` or ``AdamW``.
        bits: 8 or 4 per value of state.
    """
    kind = type(optimizer)
    if kind not in (torch.optim.Adam, torch.optim.AdamW):
        raise MemfitError(f"low-bit optimizer state is there for Adam and AdamW, not for {kind.__name__}")
    if any(group.get("maximize") for group in optimizer.param_groups):
        raise MemfitError("low-bit optimizer state does not know maximize=True")
    try:
        from torchao import optim
    except ImportError as error:
        raise MissingFrameworkError("torchao", "lowbit") from error
    groups = [
        {"params": group["params"], **{key: group[key] for key in _SETTINGS if key in group}}
        for group in optimizer.param_groups
    ]
    decoupled = kind is torch.optim.AdamW or bool(optimizer.defaults.get("decoupled_weight_decay"))
    made = getattr(optim, f"{'AdamW' if decoupled else 'Adam'}{bits}bit")(groups, lr=float(optimizer.defaults["lr"]))
    for group in made.param_groups:
        for parameter in group["params"]:
            old = optimizer.state.get(parameter)
            if old:
                made.state[parameter] = {"step": old["step"].clone()}
                for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
                    if key in old:
                        made.state[parameter][key] = made._new_buffer(parameter, key == "exp_avg").copy_(old[key])
    return made


def follow_settings(made: Any, original: Any) -> None:
    """Give a low-bit optimizer the settings that the original's groups have now: schedulers change those.

    Its learning rates are tensors and stay so: compiled updates read them by identity.
    """
    for group, source in zip(made.param_groups, original.param_groups, strict=True):
        for key in _SETTINGS:
            if key in source and isinstance(group.get(key), torch.Tensor):
                group[key].fill_(float(source[key]))
            elif key in source:
                group[key] = source[key]


class _Packed:
    """A float tensor as one byte a value, scaled per row."""

    __slots__ = ("__weakref__", "dtype", "scale", "values")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.dtype = tensor.dtype
        rows = tensor.detach()
        self.scale = rows.abs().amax(dim=-1, keepdim=True).float().div_(127)
        spread = rows.float() / self.scale.clamp(min=torch.finfo(torch.float32).tiny)
        self.values = spread.round_().clamp_(-127, 127).to(torch.int8)

    def open(self) -> torch.Tensor:
        return (self.values.float().mul_(self.scale)).to(self.dtype)


@contextlib.contextmanager
def low_bit_activations(model: Any, inputs: Any = None) -> Iterator[None]:
    """Inside, float tensors saved for backward are kept as 8-bit values; not parameters, buffers and ``inputs``.

    A tensor saved by several ops is packed once. Cost: one pass over each saved tensor, twice.
    """
    alive = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    alive += [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]
    held = {tensor.untyped_storage().data_ptr() for tensor in alive}
    known: dict[tuple[Any, ...], tuple[StorageWeakRef, weakref.ref[_Packed]]] = {}

    def pack(tensor: torch.Tensor) -> Any:
        part = tensor.untyped_storage() if tensor.layout is torch.strided else None
        if (
            part is None or type(tensor) is not torch.Tensor or not tensor.is_floating_point() or tensor.dim() == 0
            or tensor.numel() < _SMALLEST or part.data_ptr() in held
        ):  # fmt: skip
            return tensor
        key = (
            part.data_ptr(),
            tensor.storage_offset(),
            tuple(tensor.shape),
            tensor.stride(),
            tensor.dtype,
            tensor._version,
        )
        if key in known and not known[key][0].expired():
            packed = known[key][1]()
            if packed is not None:
                return packed
        packed = _Packed(tensor)
        known[key] = (StorageWeakRef(part), weakref.ref(packed))
        return packed

    def unpack(saved: Any) -> torch.Tensor:
        return saved.open() if isinstance(saved, _Packed) else saved

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


@dataclass(frozen=True, slots=True)
class LossyError:
    """Against the exact step from the same state: relative difference of the loss, and of what the step changes.

    ``update``: 2-norm of the difference over the 2-norm of the change, of all parameters (of the gradients where the
    step has no optimizer).
    """

    loss: float
    update: float


def measure_error(step: Step, low_bit: LowBit, rewind: Callable[[], None]) -> LossyError:
    """Run the exact step and the lossy one, both from the state that ``rewind`` puts back.

    Cost: two steps, and three copies of the parameters.
    """
    parameters = [p for p in step.model.parameters() if p.requires_grad]

    def changes(run: Callable[[], Any], optimizer: Any) -> tuple[float, list[torch.Tensor]]:
        before = [p.detach().clone() for p in parameters]
        loss = float(run())
        if optimizer is None:
            return loss, [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in parameters]
        return loss, [p.detach() - old for p, old in zip(parameters, before, strict=True)]

    rewind()
    exact_loss, exact = changes(lambda: run_step(step), step.optimizer)
    rewind()
    lowered = low_bit.lowered(step)
    with low_bit.saving(lowered):
        loss, lossy = changes(lambda: run_step(lowered), lowered.optimizer)
    rewind()
    size = sum(float(a.double().square().sum()) for a in exact)
    gap = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(exact, lossy, strict=True))
    return LossyError(abs(loss - exact_loss) / (abs(exact_loss) + 1e-12), (gap / (size + 1e-30)) ** 0.5)


LADDER = (
    LowBit(activation_bits=8),
    LowBit(optimizer_bits=8),
    LowBit(activation_bits=8, optimizer_bits=8),
    LowBit(activation_bits=8, optimizer_bits=4),
    LowBit("bfloat16", 8, 8),
    LowBit("bfloat16", 4, 8),
)
