"""Runs a captured program once, op by op, and learns of each what an arena must know: its results' layout, what it
allocates inside, and which form of it writes straight into the arena.

Forms, the first that applies:

* ``fill``: a constant or random fill of a result;
* ``over``: the op's in-place form, over an input that dies there (``inplace``);
* ``out``: its ``out=`` form, where that gave the same bits and allocated nothing;
* ``served``: the op as it is, its allocations answered from the plan (``arena_allocator``), results and temporaries;
* ``plain``: an op that allocates nothing and has no result, or only changes what exists.

What the run changes (buffers, the random state) is put back. Cost: the program once or twice, with its live tensors.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from memfit.analyses.liveness import lifetimes
from memfit.errors import CaptureError
from memfit.frameworks.torch import random_ops
from memfit.frameworks.torch.arena_allocator import Call, Rehearsal
from memfit.frameworks.torch.inplace import in_place_call
from memfit.frameworks.torch.program import METADATA_ONLY, Program, is_random, reads_only_shape

FILL, OVER, OUT, SERVED, PLAIN = "fill", "over", "out", "served", "plain"


@dataclass(frozen=True)
class Laid:
    """How a value lies in its storage."""

    storage: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass
class Known:
    """What the rehearsal learned of one op. ``calls``: its allocations; ``result_call``: storage -> index among them.

    ``out``: the overload and the names of its ``out`` arguments. ``over``: what its form over a dying input allocates,
    None where there is no such form; it is used where the plan puts the two at one offset.
    """

    form: str
    calls: list[Call] = field(default_factory=list)
    result_call: dict[int, int] = field(default_factory=dict)
    out: tuple[Any, tuple[str, ...]] | None = None
    over: list[Call] | None = None


@dataclass
class Rehearsed:
    """All ops of a program; ``laid``: value -> layout; ``nbytes``: storage -> true bytes; ``outputs``: what it returned."""

    ops: dict[int, Known]
    laid: dict[Node, Laid]
    nbytes: dict[int, int]
    outputs: list[Any]


def flat_results(value: Any) -> list[torch.Tensor]:
    """The tensors of an op's result, in order."""
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in flat_results(item)]
    return [value] if isinstance(value, torch.Tensor) else []


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors have one dtype, shape and the same bytes; NaN equals NaN."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))


def value_of(node: Node, program: Program, values: dict[Node, Any]) -> Any:
    """The value of a node: kept, an attribute of the module, or a view made anew."""
    if node in values:
        return values[node]
    if node.op == "get_attr":
        found: Any = program.module
        for part in str(node.target).split("."):
            found = getattr(found, part)
        return found
    if node not in program.views:
        raise CaptureError(f"the value of {node} is not there")
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: value_of(n, program, values))
    return node.target(*args, **kwargs)  # type: ignore[operator]


class Rehearse:
    """One rehearsal of ``program`` in the order of ``schedule`` on the tensors of its placeholders.

    ``look`` is given each reading; ``allow_out`` and ``serve``: whether those forms may be used.
    """

    def __init__(
        self, program: Program, schedule: Sequence[int], tensors: Sequence[torch.Tensor],
        look: Callable[[torch.Tensor], None], *, allow_out: bool = True, serve: bool = True,
    ) -> None:  # fmt: skip
        self.program, self.schedule, self.look, self.allow_out, self.serve = program, schedule, look, allow_out, serve
        self.alive = lifetimes(program.graph, schedule)
        self.values: dict[Node, Any] = {}
        placeholders = [n for n in program.module.graph.nodes if n.op == "placeholder"]
        for node, tensor in zip(placeholders, tensors, strict=True):
            self.values[node] = tensor
        self.nodes_of: dict[int, list[Node]] = {}
        self.items: dict[Node, list[Node]] = {}
        for node, storage in program.storage_of.items():
            if node in program.views or program.graph.storages[storage].constant:
                continue
            self.nodes_of.setdefault(storage, []).append(node)
            if node.op == "call_function" and node.target is operator.getitem:
                self.items.setdefault(node.args[0], []).append(node)  # type: ignore[arg-type]
        self.found = Rehearsed({}, {}, {}, [])

    def run(self) -> Rehearsed:
        """All ops once.

        Raises:
            CaptureError: an op that does not do what it did when it was captured.
        """
        random_state = torch.get_rng_state()
        changed = self._changed_constants()
        kept = [(tensor, tensor.clone()) for tensor in changed]
        try:
            with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
                if self.serve:
                    with Rehearsal() as notes:
                        self._all(notes)
                else:
                    self._all(None)
                outputs = [self._value(o) if isinstance(o, Node) else o for o in self.program.outputs]
                self.found.outputs = [o.clone() if isinstance(o, torch.Tensor) else o for o in outputs]
        finally:
            torch.set_rng_state(random_state)
            with torch.no_grad():
                for tensor, copy in kept:
                    tensor.copy_(copy)
        self.values.clear()
        return self.found

    def _changed_constants(self) -> list[torch.Tensor]:
        changed = {storage for op in self.program.graph.ops for storage in op.changes}
        return [tensor for node, tensor in self.values.items() if self.program.storage_of.get(node) in changed]

    def _value(self, node: Node) -> Any:
        return value_of(node, self.program, self.values)

    def _like(self, node: Node) -> Any:
        """Something of a value's shape: the value itself may be dead."""
        value = node.meta["val"]
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)

    def _all(self, notes: Rehearsal | None) -> None:
        for position, index in enumerate(self.schedule):
            node = self.program.nodes[index]
            if index in self.program.readings:
                self.look(self._value(self.program.readings[index]))
                self.found.ops[index] = Known(PLAIN)
            elif node is None:
                raise CaptureError("an arena runs inference, and this program has an optimizer step")
            else:
                self._op(node, index, position, notes)
            for storage in self.alive.freed[position]:
                for dead in self.nodes_of.get(storage, ()):
                    self.values.pop(dead, None)

    def _op(self, node: Node, index: int, position: int, notes: Rehearsal | None) -> None:
        shaped = node.args[0] if reads_only_shape(node) else None
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: self._like(n) if n is shaped else self._value(n))
        op, random = self.program.graph.ops[index], is_random(node)
        state = torch.get_rng_state() if random else None
        if notes is not None:
            notes.begin()
        result = node.target(*args, **kwargs)  # type: ignore[operator]
        kept = self._laid(node, op.writes, result)
        tensors = flat_results(result)
        del result
        wanted = tensors if len(tensors) == len(kept) else []  # not all are read: no form but the op as it is
        del tensors
        known = Known(SERVED, notes.end() if notes is not None else [])
        self.found.ops[index] = known
        made = {call.address: i for i, call in enumerate(known.calls) if call.freed < 0}
        for tensor, storage in kept:
            if tensor.untyped_storage().nbytes():
                if notes is not None and tensor.untyped_storage().data_ptr() not in made:
                    raise CaptureError(f"the result of {node.target} is no memory that it allocated")
                known.result_call[storage] = made.get(tensor.untyped_storage().data_ptr(), -1)
        if not any(self.found.nbytes[s] for s in op.writes):
            known.form = SERVED if known.calls else PLAIN
        elif str(node.target) in METADATA_ONLY:
            known.form, known.calls, known.result_call = FILL, [], {}
        elif str(node.target) in random_ops.NAMES:
            assert state is not None
            known.form, known.calls = FILL, self._calls_of_fill(node, args, state, wanted[0], notes)
            known.result_call = {}
        elif self.allow_out and wanted and not random and not op.changes:
            known.out = self._out_form(node, args, kwargs, wanted, notes)
            if known.out is not None:
                known.form, known.calls, known.result_call = OUT, [], {}
        if self.alive.reused[position] and wanted:
            known.over = self._calls_over(node, op.reuse, wanted[0], notes)

    def _laid(self, node: Node, writes: tuple[int, ...], result: Any) -> list[tuple[torch.Tensor, int]]:
        """Keep the results that are read, and note how they lie; (tensor, storage) of each."""
        kept = []
        for value in [node] if node in self.program.storage_of else self.items.get(node, []):
            tensor = result if value is node else result[value.args[1]]  # type: ignore[index]
            storage = self.program.storage_of[value]
            if storage in writes:
                self.values[value] = tensor
                self.found.nbytes[storage] = tensor.untyped_storage().nbytes()
                shape, stride = tuple(tensor.shape), tensor.stride()
                self.found.laid[value] = Laid(storage, tensor.dtype, shape, stride, tensor.storage_offset())
                kept.append((tensor, storage))
        for storage in writes:  # of a result that nothing reads: the op's own business
            self.found.nbytes.setdefault(storage, 0)
        return kept

    def _calls_of_fill(
        self, node: Node, args: Any, state: torch.Tensor, wanted: torch.Tensor, notes: Rehearsal | None
    ) -> list[Call]:
        made = torch.empty_strided(wanted.shape, wanted.stride(), dtype=wanted.dtype)
        after = torch.get_rng_state()
        torch.set_rng_state(state)
        if notes is not None:
            notes.begin()
        random_ops.IN_PLACE[str(node.target)](made, *args[1:])
        calls = notes.end() if notes is not None else []
        torch.set_rng_state(after)
        return calls

    def _calls_over(self, node: Node, storage: int, wanted: torch.Tensor, notes: Rehearsal | None) -> list[Call] | None:
        """What the op's form over ``storage`` allocates; None where there is none that gives the same bits."""
        form = in_place_call(node, storage, self.program.storage_of)
        if form is None:
            return None
        target, keyword, place = form
        args, kwargs = map_arg((node.args, node.kwargs), self._value)
        source = args[place]
        copy = torch.empty_strided(source.shape, source.stride(), dtype=source.dtype).copy_(source)
        given = [*args[:place], copy, *args[place + 1 :]]
        if notes is not None:
            notes.begin()
        made = target(*given, **kwargs) if keyword == "self" else target(*given, **kwargs, **{keyword: copy})
        calls = notes.end() if notes is not None else []
        if made.data_ptr() != copy.data_ptr() or made.stride() != wanted.stride() or not same_bits(made, wanted):
            return None
        return calls

    def _out_form(
        self, node: Node, args: Any, kwargs: Any, wanted: list[torch.Tensor], notes: Rehearsal | None
    ) -> tuple[Any, tuple[str, ...]] | None:
        found = out_overload(node.target)
        if found is None or len(found[1]) != len(wanted) or any(not t.untyped_storage().nbytes() for t in wanted):
            return None
        target, names = found
        outs = [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype) for t in wanted]
        places = [out.data_ptr() for out in outs]
        if notes is not None:
            notes.begin()
        try:
            target(*args, **kwargs, **dict(zip(names, outs, strict=True)))
        except (RuntimeError, NotImplementedError, TypeError):
            return None
        finally:
            allocated = notes is not None and bool(notes.end())
        if allocated:
            return None
        for place, made, like in zip(places, outs, wanted, strict=True):
            if made.data_ptr() != place or made.stride() != like.stride() or not same_bits(made, like):
                return None
        return found


def out_overload(target: Any) -> tuple[Any, tuple[str, ...]] | None:
    """The overload of an op that writes its results where it is told, and the names it takes them by; or None."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return None
    wanted = [(a.name, str(a.type)) for a in schema.arguments]
    packet = target.overloadpacket
    for name in packet.overloads():
        other = getattr(packet, name)
        given = [(a.name, str(a.type)) for a in other._schema.arguments if not a.is_out]
        outs = tuple(a.name for a in other._schema.arguments if a.is_out)
        if outs and given == wanted:
            return other, outs
    return None


def with_true_sizes(program: Program, found: Rehearsed) -> Program:
    """``program`` with the bytes that its storages really have, and the reuse that was confirmed."""
    storages = tuple(
        s if s.constant else replace(s, nbytes=found.nbytes.get(i, s.nbytes))
        for i, s in enumerate(program.graph.storages)
    )
    ops = tuple(
        replace(op, reuse=op.reuse if found.ops[i].over is not None else -1) for i, op in enumerate(program.graph.ops)
    )
    return replace(program, graph=replace(program.graph, ops=ops, storages=storages))
