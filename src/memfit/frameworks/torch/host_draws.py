"""Random arrays that a program draws outside of torch: found in the capture, drawn again in every run.

Speech models choose the spans that they mask with NumPy, in a function of plain numbers::

    mask = _compute_mask_indices((batch, length), probability, span)     draws from numpy.random
    hidden[torch.tensor(mask)] = self.masked_embedding

A captured graph would hold the mask of its capture for ever. A *draw* is such a call: a function of a module, with plain
arguments, during which NumPy's or Python's random state moved, and which gives an array. Each conversion of that array
to a tensor becomes an input of the graph; a run calls the draws in order, so that the generators end as they would.

Sound because it is checked: the draws are called again from the state that the capture started with, and must give the
same arrays and leave the same state, or nobody knows what else was drawn; and ``capture`` records the graph again from
another state and refuses when it differs.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from memfit.errors import CaptureError

_PLAIN = (int, float, str, bool, type(None), np.dtype, np.number)
_SOURCES = frozenset({"np", "numpy", "random", "rng"})


@dataclass(frozen=True)
class Draw:
    """A call that gives a random array."""

    function: Callable[..., Any]
    arguments: dict[str, Any]

    def __call__(self) -> Any:
        """Draw."""
        return self.function(**self.arguments)


@dataclass(frozen=True)
class HostDraws:
    """The draws of a step, in order, and the tensors made of them: (number of the draw, how)."""

    draws: tuple[Draw, ...] = ()
    tensors: tuple[tuple[int, Callable[[Any], torch.Tensor]], ...] = ()

    def __call__(self) -> list[torch.Tensor]:
        """Draw everything once; the tensors, in order."""
        arrays = [draw() for draw in self.draws]
        return [how(arrays[place]) for place, how in self.tensors]


class OutsideState:
    """NumPy's and Python's global random state, as it is now."""

    def __init__(self) -> None:
        self.numpy, self.python = np.random.get_state(), random.getstate()

    def moved(self) -> bool:
        """Whether anything has been drawn since."""
        now: Any = np.random.get_state()
        old: Any = self.numpy
        return bool(self.python != random.getstate() or old[2:] != now[2:] or (old[1] != now[1]).any())

    def restore(self) -> None:
        """Set both back."""
        np.random.set_state(self.numpy)
        random.setstate(self.python)


@contextmanager
def reseeded(seed: int) -> Iterator[None]:
    """Another state inside, the present one again afterwards."""
    state = OutsideState()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        state.restore()


@dataclass
class DrawWatch:
    """Finds draws while active (a profile hook: Python calls cost twice as much) and what becomes of them.

    ``given``: tensors to hand out in place of the conversions, in order, in a trace after the first.
    """

    given: Sequence[torch.Tensor] | None = None
    draws: list[Draw] = field(default_factory=list)
    arrays: list[Any] = field(default_factory=list)
    tensors: list[tuple[int, Callable[[Any], torch.Tensor]]] = field(default_factory=list)
    _draws_here: dict[CodeType, bool] = field(default_factory=dict)
    _open: list[tuple[FrameType, dict[str, Any], OutsideState]] = field(default_factory=list)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Watching inside."""
        before = sys.getprofile()
        from_numpy = torch.from_numpy
        torch.from_numpy = lambda array: self.converted(from_numpy, (array,), {})  # type: ignore[assignment]
        sys.setprofile(self._event)
        try:
            with _Conversions(self):
                yield
        finally:
            sys.setprofile(before)
            torch.from_numpy = from_numpy

    def found(self) -> HostDraws:
        """What was found."""
        return HostDraws(tuple(self.draws), tuple(self.tensors))

    def converted(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A conversion to a tensor: of a drawn array, or of anything else."""
        place = next((i for i, array in enumerate(self.arrays) if args and array is args[0]), None)
        if place is None:
            return function(*args, **kwargs)
        rest = args[1:]
        self.tensors.append((place, lambda array: function(array, *rest, **kwargs)))
        if self.given is None:
            return function(*args, **kwargs)
        if len(self.tensors) > len(self.given):
            raise CaptureError("its use of random numbers from outside of torch differs from run to run")
        return self.given[len(self.tensors) - 1].clone()

    def _event(self, frame: FrameType, event: str, result: Any) -> None:
        code = frame.f_code
        if event == "call":
            if code not in self._draws_here:
                self._draws_here[code] = bool(_SOURCES & set(code.co_names))
            if self._draws_here[code] and not self._open:
                names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
                arguments = {name: frame.f_locals[name] for name in names if name in frame.f_locals}
                if all(_is_plain(value) for value in arguments.values()):
                    self._open.append((frame, arguments, OutsideState()))
        elif event == "return" and self._open and self._open[-1][0] is frame:
            _, arguments, state = self._open.pop()
            function = frame.f_globals.get(code.co_name)
            if state.moved():
                if not isinstance(result, np.ndarray) or getattr(function, "__code__", None) is not code:
                    raise CaptureError(
                        "it draws random numbers outside of torch", f"{code.co_filename}:{code.co_firstlineno}"
                    )
                self.draws.append(Draw(function, arguments))  # type: ignore[arg-type]
                self.arrays.append(result)


class _Conversions(TorchFunctionMode):
    def __init__(self, watch: DrawWatch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.tensor, torch.as_tensor):
            return self.watch.converted(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(item) for item in value)
    return isinstance(value, _PLAIN)


def checked(watch: DrawWatch, start: OutsideState) -> HostDraws:
    """The draws found, after they were drawn again from ``start`` and gave the same.

    Raises:
        CaptureError: they do not: something else was drawn too.
    """
    end = OutsideState()
    start.restore()
    again = [draw() for draw in watch.draws]
    same = all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(again, watch.arrays, strict=True))
    if not same or end.moved():
        raise CaptureError("it draws random numbers outside of torch", hint="draw them before the step")
    return watch.found()
