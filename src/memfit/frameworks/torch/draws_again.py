"""Random numbers that a program draws a second time on purpose: checkpointing that is in the model already.

A checkpointed block keeps the random state of its first run and puts it back before it runs again for the backward
pass, so that both drop the same elements. A trace draws nothing, and would hold two draws that have nothing to do with
each other. Here the trace's draws are numbered as the generator would give them out::

    draw       0        1     (put back to 0)   2 = 0 again     (put back to 2)   3
    position   0        1                       0                                 2

and a draw at a position that was drawn before is replaced by that first one, whose numbers the program then keeps or,
if the planner finds that better, draws again from a state that it keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from memfit.errors import CaptureError
from memfit.frameworks.torch.program import is_random


@dataclass
class DrawsAgain:
    """What a trace did with the random state: ``watched`` while it is recorded, ``read`` from it, ``apply`` to its form
    without mutations, whose draws stand in the same order.
    """

    _taken: list[torch.Tensor] = field(default_factory=list)
    _moves: list[tuple[int, str, int]] = field(default_factory=list)  # draws recorded so far, what, which state
    _same: dict[int, int] = field(default_factory=dict)  # draw -> the draw that gave the same numbers
    _draws: int = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note where the program takes the random state and where it puts one back.

        Raises:
            CaptureError: it puts back a state that it did not take in this step, or seeds the generator.
        """
        take, put, seed = torch.get_rng_state, torch.set_rng_state, torch.manual_seed

        def get_rng_state() -> torch.Tensor:
            state = take()
            self._moves.append((_recorded(), "take", len(self._taken)))
            self._taken.append(state)
            return state

        def set_rng_state(state: torch.Tensor) -> None:
            for index in range(len(self._taken) - 1, -1, -1):
                if self._taken[index] is state:
                    self._moves.append((_recorded(), "put", index))
                    return
            raise CaptureError("it sets the random state to one that it did not take in the same step")

        def manual_seed(value: Any) -> Any:
            raise CaptureError("it seeds the random numbers anew in each step")

        functions: list[tuple[Any, str, Callable[..., Any]]] = [
            (place, name, function)
            for place in (torch, torch.random)
            for name, function in (
                ("get_rng_state", get_rng_state), ("set_rng_state", set_rng_state), ("manual_seed", manual_seed),
            )
        ]  # fmt: skip
        before = [getattr(place, name) for place, name, _ in functions]
        for place, name, function in functions:
            setattr(place, name, function)
        try:
            yield
        finally:
            for (place, name, _), old in zip(functions, before, strict=True):
                setattr(place, name, old)
            assert (torch.get_rng_state, torch.set_rng_state, torch.manual_seed) == (take, put, seed)

    def read(self, module: fx.GraphModule) -> None:
        """Number the draws of the trace, and find which repeat an earlier one.

        Raises:
            CaptureError: a draw at a position drawn before asks for other numbers than the first time.
        """
        draws = [node for node in module.graph.nodes if node.op == "call_function" and is_random(node)]
        self._draws = len(draws)
        position = 0
        positions: dict[int, int] = {}
        first: list[int] = []
        moves = iter([*self._moves, (len(draws) + 1, "end", 0)])
        at, what, index = next(moves)
        for number, node in enumerate(draws):
            while at <= number and what != "end":
                if what == "take":
                    positions[index] = position
                else:
                    position = positions[index]
                at, what, index = next(moves)
            if position < len(first):
                self._same[number] = first[position]
                if _asks(node) != _asks(draws[first[position]]):
                    raise CaptureError("it puts the random state back, and then draws something else than before")
            else:
                first.append(number)
            position += 1

    def apply(self, module: fx.GraphModule) -> None:
        """Replace the repeated draws.

        Raises:
            CaptureError: the draws of ``module`` are not those of the trace.
        """
        if not self._same:
            return
        draws = [node for node in module.graph.nodes if node.op == "call_function" and is_random(node)]
        if len(draws) != self._draws:
            raise CaptureError("it repeats random numbers in a way that the graph does not show")
        for number, earlier in self._same.items():
            draws[number].replace_all_uses_with(draws[earlier])
            module.graph.erase_node(draws[number])
        module.recompile()


def _recorded() -> int:
    mode = get_proxy_mode()
    if mode is None:
        return 0
    return sum(node.op == "call_function" and is_random(node) for node in mode.tracer.graph.nodes)


def _asks(node: fx.Node) -> tuple[str, Any, Any]:
    value = node.meta.get("val")
    shape = (tuple(value.shape), tuple(value.stride()), value.dtype) if isinstance(value, torch.Tensor) else None
    plain = fx.node.map_arg((node.args[1:], dict(node.kwargs)), lambda _: None)
    return str(node.target), shape, plain
