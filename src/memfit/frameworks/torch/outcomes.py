"""Which way a step's own looks at tensor values went: followed in the capture, checked in every run.

``if x.isnan().any()``, ``while error.item() > 1e-3``, ``x[mask]``: the flat graph of one run holds one way through. While
it is recorded, every look at a value is answered with the value that the step really computes (``part_run``), and kept
as a *reading*, an output of the graph, and a *test*, what was made of readings::

    reading 0   loss.item()                    test 0   readings[0] > 0.5  gave True
    reading 1   x.isnan().any()                test 1   bool(readings[1])  gave False

A fitted step evaluates the tests as its readings come, in the program's order; where one gives something else, this call
is another way through the program and needs the graph of that way. What a number is used for decides what is tested:
``.item()`` gives a ``Number``, whose comparisons are tests of their own outcome; whatever else is done with it tests
that it is the same number.

Shapes that depend on values: positions of a mask come from one op (``memfit::positions``) that takes the number of rows
as an argument in the trace and ignores it in a run. Where the graph is the same whatever that number, nothing depends
on it and nothing is tested (``capture`` traces twice to see); the largest number then stands for the memory.
"""

from __future__ import annotations

import math
import operator
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from memfit.errors import CaptureError

_LARGEST_LIST = 4096
aten = torch.ops.aten

_library = torch.library.Library("memfit", "FRAGMENT")
_library.define("positions(Tensor mask, int rows) -> Tensor")
_library.impl("positions", lambda mask, rows: torch.nonzero(mask), "CompositeExplicitAutograd")
torch.library.register_fake(
    "memfit::positions", lambda mask, rows: mask.new_empty((rows, mask.dim()), dtype=torch.long), lib=_library
)


def _ctc_shapes(
    log_probs: torch.Tensor,
    targets: torch.Tensor,
    inputs: list[int],
    lengths: list[int],
    blank: int = 0,
    zero: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    steps, batch = log_probs.shape[:2]
    return log_probs.new_empty(batch), log_probs.new_empty((batch, steps, 2 * max(lengths, default=0) + 1))


_library.define(
    "ctc_loss(Tensor log_probs, Tensor targets, int[] a, int[] b, int blank=0, bool zero=False) -> (Tensor, Tensor)"
)
_library.impl("ctc_loss", aten._ctc_loss.default, "CompositeExplicitAutograd")
torch.library.register_fake("memfit::ctc_loss", _ctc_shapes, lib=_library)


@dataclass(frozen=True)
class Test:
    """``outcome`` is what ``of`` made of the values of all readings so far; ``needs``: how many that were."""

    needs: int
    of: Callable[[Sequence[Any]], Any]
    outcome: Any
    where: str = ""


def same(a: Any, b: Any) -> bool:
    """Whether two outcomes are one: equal and of one type, not-a-number equal to itself."""
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return type(a) is type(b) and bool(a == b)


def value_of(tensor: torch.Tensor) -> Any:
    """What a reading holds, as plain Python."""
    return tensor.item() if tensor.dim() == 0 else tensor.tolist()


@dataclass
class Watch:
    """The readings and tests of one trace. ``real`` computes the value of a traced tensor for real, and the values that
    other random numbers would give it (none: always the same); a test that they would not pass is refused.

    ``plain``: ``.item()`` gives plain numbers, each tested for being the same. ``rows``: the number of rows that a mask
    of so many elements is taken to have in the trace; None: its true number, tested. ``text``: what the trace does, to
    compare two.
    """

    real: Callable[[torch.Tensor], tuple[Any, list[Any]]]
    plain: bool = False
    rows: Callable[[int], int] | None = None
    readings: list[torch.Tensor] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    others: list[list[Any]] = field(default_factory=list)
    tests: list[Test] = field(default_factory=list)
    free_rows: bool = False
    text: list[Any] = field(default_factory=list)

    def read(self, tensor: torch.Tensor) -> int:
        """A new reading; its number."""
        kept = aten.clone.default(tensor.detach())
        value, others = self.real(kept)
        self.values.append(value)
        self.others.append(others)
        self.readings.append(kept)
        return len(self.readings) - 1

    def test(self, of: Callable[[Sequence[Any]], Any]) -> Any:
        """The outcome of something made of readings, from here on tested."""
        outcome = of(self.values)
        for draw in range(min((len(row) for row in self.others if row), default=0)):
            elsewhere = [row[draw] if row else value for row, value in zip(self.others, self.values, strict=True)]
            if not same(of(elsewhere), outcome):
                raise CaptureError("its control flow depends on random numbers", _user_line())
        self.tests.append(Test(len(self.readings), of, outcome, _user_line()))
        return outcome

    def value(self, tensor: torch.Tensor) -> Any:
        """The value of a tensor, tested to be the same."""
        place = self.read(tensor)
        return self.test(lambda values: values[place])

    def positions(self, mask: torch.Tensor) -> torch.Tensor:
        """``nonzero`` of a mask."""
        if self.rows is not None:
            self.free_rows = True
            return torch.ops.memfit.positions(mask, self.rows(mask.numel()))  # type: ignore[no-any-return]
        return torch.ops.memfit.positions(mask, self.value(mask.ne(0).sum()))  # type: ignore[no-any-return]


class Number:
    """A number read from a tensor. Comparisons and arithmetic go on; conversions are tested for their result."""

    __slots__ = ("_of", "_watch")

    def __init__(self, watch: Watch, of: Callable[[Sequence[Any]], Any]) -> None:
        self._watch, self._of = watch, of

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*plain_numbers(args), **plain_numbers(kwargs or {}))

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # type: ignore[override]
        return type(self._of(self._watch.values))

    def plain(self) -> Any:
        """The number itself, from here on tested to be the same."""
        return self._watch.test(self._of)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain(), name)

    def __hash__(self) -> int:
        return hash(self.plain())

    def __repr__(self) -> str:
        return repr(self._of(self._watch.values))

    def __format__(self, form: str) -> str:
        return format(self._of(self._watch.values), form)


def plain_numbers(arguments: Any) -> Any:
    """Arguments with plain numbers for every Number among them."""
    return pytree.tree_map(lambda leaf: leaf.plain() if type(leaf) is Number else leaf, arguments)


def _compared(function: Callable[[Any, Any], Any]) -> Callable[[Number, Any], Any]:
    def method(self: Number, other: Any) -> Any:
        if isinstance(other, torch.Tensor):
            return function(self.plain(), other)
        a, b = self._of, _part(other)
        return self._watch.test(lambda values: function(a(values), b(values)))

    return method


def _made(function: Callable[[Any, Any], Any], swapped: bool) -> Callable[[Number, Any], Any]:
    def method(self: Number, other: Any) -> Any:
        if isinstance(other, torch.Tensor):
            return function(other, self.plain()) if swapped else function(self.plain(), other)
        a, b = (_part(other), self._of) if swapped else (self._of, _part(other))
        return Number(self._watch, lambda values: function(a(values), b(values)))

    return method


def _changed(function: Callable[[Any], Any], *, test: bool) -> Callable[[Number], Any]:
    def method(self: Number) -> Any:
        of = self._of
        if test:
            return self._watch.test(lambda values: function(of(values)))
        return Number(self._watch, lambda values: function(of(values)))

    return method


def _part(value: Any) -> Callable[[Sequence[Any]], Any]:
    if type(value) is Number:
        return value._of
    return lambda values: value


for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Number, f"__{_name}__", _compared(getattr(operator, _name)))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(Number, f"__{_name}__", _made(getattr(operator, _name), swapped=False))
    setattr(Number, f"__r{_name}__", _made(getattr(operator, _name), swapped=True))
_signs: tuple[tuple[str, Callable[[Any], Any]], ...] = (("neg", operator.neg), ("pos", operator.pos), ("abs", abs))
for _name, _function in _signs:
    setattr(Number, f"__{_name}__", _changed(_function, test=False))
_conversions: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("float", float), ("int", int), ("bool", bool), ("index", operator.index), ("round", round),
    ("trunc", math.trunc), ("floor", math.floor), ("ceil", math.ceil),
)  # fmt: skip
for _name, _function in _conversions:
    setattr(Number, f"__{_name}__", _changed(_function, test=True))


# Ops on lengths in tensors, whose results have other shapes for other lengths: (where the two tensors of lengths stand,
# the form that takes them as numbers; eager mode calls the same kernel).
_LENGTHS = {
    aten._ctc_loss.Tensor: (2, torch.ops.memfit.ctc_loss.default),
    aten._ctc_loss_backward.Tensor: (3, aten._ctc_loss_backward.default),
}


class ItemsWatched(TorchFunctionMode):
    """``.item()``, ``.tolist()`` and ``.numpy()`` of traced tensors become readings."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if args and _is_traced(args[0]):
            if func is torch.Tensor.item and not self.watch.plain:
                place = self.watch.read(args[0].reshape(()))
                return Number(self.watch, lambda values: values[place])
            if func in (torch.Tensor.tolist, torch.Tensor.numpy) and args[0].numel() <= _LARGEST_LIST:
                value = self.watch.value(args[0])
                return value if func is torch.Tensor.tolist else torch.tensor(value, dtype=args[0].dtype).numpy()
        return func(*args, **kwargs)


class ValuesWatched(TorchDispatchMode):
    """Ops whose result is a plain value, or whose shape depends on values, on traced tensors."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default and _is_traced(args[0]):
            return self.watch.value(args[0].reshape(()))
        if func is aten.equal.default and _is_traced(args[0]) and _is_traced(args[1]):
            if args[0].shape != args[1].shape:
                return False
            return self.watch.value(torch.eq(args[0], args[1]).all())
        if func is aten.nonzero.default and _is_traced(args[0]):
            return self.watch.positions(args[0])
        if func is aten.masked_select.default and _is_traced(args[0]):
            values, mask = torch.broadcast_tensors(args[0], args[1])
            return aten.index.Tensor(values, list(self.watch.positions(mask).unbind(1)))
        if func in _LENGTHS:
            first, plain = _LENGTHS[func]
            lengths = [self.watch.value(value) for value in args[first : first + 2]]
            return plain(*args[:first], *lengths, *args[first + 2 :], **kwargs)
        if func is aten.index.Tensor and any(_is_mask(index) and _is_traced(index) for index in args[1]):
            places: list[Any] = []
            for index in args[1]:
                places += self.watch.positions(index).unbind(1) if _is_mask(index) else [index]
            return func(args[0], places)
        return func(*args, **kwargs)


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)


def _is_traced(value: Any) -> bool:
    """Whether a value of the trace is not known: a fake tensor that is no small constant."""
    if not isinstance(value, FakeTensor):
        return False
    mode = get_proxy_mode()
    if mode is None:
        return False
    slot = get_proxy_slot(value, mode.tracer, None)
    return slot is not None and getattr(slot, "constant", None) is None


def traced_as(tensor: torch.Tensor) -> tuple[torch.fx.Node, Any]:
    """The node of a traced tensor, and the module that holds the trace's constants.

    Raises:
        CaptureError: the tensor is not part of the trace.
    """
    mode = get_proxy_mode()
    slot: Any = None if mode is None else get_proxy_slot(tensor, mode.tracer, None)
    if mode is None or slot is None:
        raise CaptureError("its control flow depends on a value that is not part of the trace", _user_line())
    return slot.proxy.node, mode.tracer.root


def _user_line() -> str:
    for frame in reversed(traceback.extract_stack()):
        if "/torch/" not in frame.filename and "/memfit/" not in frame.filename:
            return f"{frame.filename}:{frame.lineno}"
    return ""


class OtherWayError(Exception):
    """A test came out differently: ``outcomes`` of the tests so far, the last one being other than assumed."""

    def __init__(self, outcomes: tuple[Any, ...]) -> None:
        super().__init__(f"test {len(outcomes) - 1} gave {outcomes[-1]!r}")
        self.outcomes = outcomes


class Checker:
    """Holds the readings of one run against the tests of its capture, in the program's order.

    Call it with each reading; it raises ``OtherWayError`` at the first test that comes out differently.
    """

    def __init__(self, tests: Sequence[Test]) -> None:
        self.tests, self.values, self.done = tests, list[Any](), 0

    def __call__(self, reading: torch.Tensor) -> None:
        """Take the next reading."""
        self.values.append(value_of(reading))
        while self.done < len(self.tests) and self.tests[self.done].needs <= len(self.values):
            test = self.tests[self.done]
            outcome = test.of(self.values)
            self.done += 1
            if not same(outcome, test.outcome):
                raise OtherWayError((*(known.outcome for known in self.tests[: self.done - 1]), outcome))


def goes_with(tests: Sequence[Test], outcomes: Sequence[Any]) -> bool:
    """Whether a capture with these tests is one that a run with these first outcomes may follow."""
    return len(tests) >= len(outcomes) and all(
        same(test.outcome, seen) for test, seen in zip(tests, outcomes, strict=False)
    )
