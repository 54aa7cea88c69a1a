"""The tape: every storage that a program allocates and frees, op by op, without running the program.

A dispatch mode stands under autograd, where each ATen op arrives as the CPU kernel would see it. Views run for real
(they cost nothing), small known values are computed (``known_values``), all other outputs become hollow tensors of
the right layout (``fake``, ``hollow``). Autograd, modules, optimizers and hooks run unchanged above it, so storages
die when they really would; a weak reference on each one writes its death. Scratch inside an op is entered as a
storage that is born and dies within it.

    build()  ->  Step          build events, step -1
    run_step x steps           forward / backward / optimizer events of step 0, 1, ...

Cost: 20-40 us an op, about 1 ms for the first op of each signature; memory independent of the model's size.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from memfit.frameworks.torch.accumulation import ASKED, adds_in_place, fills_in_place, keeps_sparse, sole_holder
from memfit.frameworks.torch.fake import (
    DATA_DEPENDENT,
    Alias,
    Constant,
    Fresh,
    Recipe,
    flat_tensors,
    infer,
    recipe_of,
    signature_of,
)
from memfit.frameworks.torch.hollow import hollow_storage, hollow_tensor, storage_bytes
from memfit.frameworks.torch.known_values import OpFacts, facts_of, is_small, stand_in
from memfit.frameworks.torch.recorder import Location, asking
from memfit.frameworks.torch.scratch import scratch_bytes

_PLAIN = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
_SPARSE = torch.ops.aten._sparse_coo_tensor_with_dims_and_tensors.default  # holds what it is given, reads none of it
_UNENDING = "torch/optim/lbfgs.py"


class _Death(weakref.ref):  # type: ignore[type-arg]
    __slots__ = ("index", "key")
    index: int
    key: int


class Tape(TorchDispatchMode):
    """Records while it is active. ``real=True`` runs every op for real: exact values, at the program's own cost."""

    def __init__(self, *, real: bool = False) -> None:
        super().__init__()
        sole_holder()
        self.real = real
        self.location = Location()
        self.ops: list[tuple[str, int, str, str, str]] = []
        self.born: list[tuple[int, int, tuple[int, ...], str]] = []
        self.scratch: set[int] = set()
        self.events: list[tuple[int, int, int]] = []
        self.notes: dict[str, None] = {}
        self._alive: dict[int, int] = {}
        self._known: set[int] = set()
        self._deaths: dict[int, _Death] = {}
        self._facts: dict[Any, OpFacts] = {}
        self._recipes: dict[Any, tuple[Recipe, int] | None] = {}
        self._in_place: dict[Any, int] = {}
        self._decided_at: tuple[str, int] = ("", -1)
        self._decisions = 0
        self._reads = 0
        self._recording = True
        self._generator = torch.Generator().manual_seed(0)

    def index_of(self, tensor: torch.Tensor) -> int | None:
        """The tape's number of a tensor's storage, if it is alive on the tape."""
        if tensor.layout is not torch.strided:
            return None
        return self._alive.get(tensor.untyped_storage()._cdata)

    def enter(self, tensor: torch.Tensor, *, known: bool, found: bool = False) -> None:
        """Record the birth of a tensor's storage now, unless it is on the tape already.

        One that is only ``found`` as an op's argument counts for nothing where its memory is another's (NumPy's).
        """
        if tensor.layout is not torch.strided:
            for part in _parts(tensor):
                self.enter(part, known=known)
            return
        if tensor.device.type != "cpu" or type(tensor) not in _PLAIN:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive or not self._recording:
            return
        index = len(self.born)
        nbytes = 0 if found and not storage.resizable() else storage.nbytes()
        self._alive[key] = index
        if known:
            self._known.add(key)
        op = len(self.ops) - 1
        self.born.append((nbytes, op, tuple(tensor.shape), str(tensor.dtype)[6:]))
        self.events.append((index, nbytes, op))
        death = _Death(storage, self._died)
        death.index, death.key = index, key
        self._deaths[index] = death

    def _died(self, death: Any) -> None:
        self._alive.pop(death.key, None)
        self._known.discard(death.key)
        self._deaths.pop(death.index, None)
        if self._recording:
            self.events.append((death.index, -self.born[death.index][0], len(self.ops) - 1))

    def stop(self) -> None:
        """Record nothing from now on; what is alive stays alive on the tape."""
        self._recording = False

    def begin(self, name: str) -> None:
        """Enter an op."""
        module, line = self.location.where()
        self.ops.append((name, self.location.step, self.location.phase, module, line))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer one op; see the module text."""
        if func in ASKED:
            form = fills_in_place(func, args)
            if form is not None:
                return self.__torch_dispatch__(form, types, args, kwargs)
            kept = keeps_sparse(func, args)
            if kept is not None:
                return kept
            kind = adds_in_place(func, args, kwargs)
            if kind:
                written = self.__torch_dispatch__(torch.ops.aten.add_.Tensor, types, args)
                return written if kind == "gradient" else torch.empty(0, dtype=written.dtype).set_(written)
        kwargs = kwargs or {}
        for kind in types:
            if kind not in _PLAIN:
                return NotImplemented
        facts = self._facts.get(func)
        if facts is None:
            facts = self._facts[func] = facts_of(func)
        tensors = flat_tensors(args, kwargs)
        alive, known = self._alive, self._known
        all_known = True
        for tensor in tensors:
            if tensor.layout is not torch.strided or tensor.device.type != "cpu":
                return self._run(func, args, kwargs, facts)
            key = tensor.untyped_storage()._cdata
            if key not in alive:
                self.enter(tensor, known=True, found=True)
            elif key not in known:
                all_known = False
        if facts.view:
            return func(*args, **kwargs)
        if self.real or func is _SPARSE:
            return self._run(func, args, kwargs, facts)
        if facts.reads_value:
            return self._read(func, args, all_known)
        self.begin(facts.name)
        if facts.returns is not None and not facts.resizes:
            return self._write(func, args, kwargs, facts, all_known)
        return self._compute(func, args, kwargs, facts, tensors, all_known)

    def _run(self, func: Any, args: Any, kwargs: Any, facts: OpFacts) -> Any:
        """The real op, its new storages entered as known."""
        if not facts.view:
            self.begin(facts.name)
        outputs = func(*args, **kwargs)
        for tensor in flat_tensors((outputs,), {}):
            self.enter(tensor, known=True)
        if self.real and not facts.view:
            self._enter_scratch(scratch_bytes(func, args, kwargs, outputs))
        return outputs

    def _read(self, func: Any, args: Any, all_known: bool) -> Any:
        if all_known:
            return func(*args)
        dtype = args[0].dtype
        line = self.location.where()[1] or "an unknown line"
        if dtype is torch.bool:
            value = self._decide(args[0], line)
            self.notes[f"a decision that depends on the weights is taken at {line}; {value} was assumed"] = None
            return value
        self.notes[f"a value that depends on the weights is read at {line}; about 1 was assumed"] = None
        self._reads += 1
        number = 1.0 + 1.0 / (self._reads + 1)
        return number if dtype.is_floating_point else complex(number) if dtype.is_complex else 1

    def _decide(self, tensor: torch.Tensor, line: str) -> bool:
        """True or False for an unknown condition: the usual answer, and the other one to a loop that never ends."""
        place = (line, self.location.calls)
        self._decisions = self._decisions + 1 if place == self._decided_at else 0
        self._decided_at = place
        file, text = asking()
        if file.endswith(_UNENDING):  # it goes on to its last iteration, and keeps each one
            return "ys >" in text
        index = self.index_of(tensor)
        maker = self.ops[self.born[index][1]][0] if index is not None else ""
        usual = not maker.startswith(("aten.any", "aten.isnan", "aten.isinf", "aten.is_nonzero"))
        return usual if self._decisions % 16 < 8 else not usual

    def _write(self, func: Any, args: Any, kwargs: Any, facts: OpFacts, all_known: bool) -> Any:
        """An op that only writes into its arguments."""
        targets = [args[where] if isinstance(where, int) else kwargs[where] for where in facts.mutates]
        if all_known:
            written = [tensor for target in targets for tensor in flat_tensors((target,), {})]
            if not (facts.random and any(tensor.is_floating_point() for tensor in written)) and all(
                is_small(tensor.dtype, tensor.untyped_storage().nbytes()) for tensor in written
            ):
                return func(*args, **kwargs)
        for tensor in [one for target in targets for one in flat_tensors((target,), {})]:
            self._forget(tensor)
        try:
            key = (func, signature_of(args), signature_of(tuple(kwargs.items())))
            nbytes = self._in_place.get(key)
            if nbytes is None:
                nbytes = self._in_place[key] = scratch_bytes(
                    func, args, kwargs, targets[0] if len(targets) == 1 else targets
                )
        except TypeError:
            nbytes = 0
        self._enter_scratch(nbytes)
        assert facts.returns is not None
        values = [args[where] if isinstance(where, int) else kwargs[where] for where in facts.returns]
        return None if not values else values[0] if len(values) == 1 else tuple(values)

    def _compute(
        self, func: Any, args: Any, kwargs: Any, facts: OpFacts, tensors: list[torch.Tensor], all_known: bool
    ) -> Any:
        """An op with outputs of its own."""
        try:
            key = (func, torch.is_grad_enabled(), signature_of(args), signature_of(tuple(kwargs.items())))
        except TypeError:
            return self._run(func, args, kwargs, facts)
        if key in self._recipes:
            entry = self._recipes[key]
        else:
            entry = self._recipes[key] = self._learn(func, args, kwargs)
        if entry is None:
            return self._on_stand_ins(func, args, kwargs, facts, tensors, all_known)
        recipe, scratch = entry
        fresh = [row for row in recipe.outputs if isinstance(row, Fresh)]
        small = all(is_small(row.dtype, row.nbytes) for row in fresh)
        floats = any(row.dtype.is_floating_point for row in fresh)
        if small and all_known and not (facts.random and floats) and self._inputs_small(tensors):
            outputs = func(*args, **kwargs)
            for tensor in flat_tensors((outputs,), {}):
                self.enter(tensor, known=True)
            return outputs
        condition = fresh and all(row.dtype is torch.bool for row in fresh) and all(t.numel() == 1 for t in tensors)
        if condition and not asking()[0].endswith(_UNENDING):
            return self._on_stand_ins(func, args, kwargs, facts, tensors, all_known, scratch)
        integers = [row for row in fresh if _is_integer(row.dtype)]
        if integers and tensors and not facts.random and all(is_small(row.dtype, row.nbytes) for row in integers):
            return self._on_stand_ins(func, args, kwargs, facts, tensors, all_known, scratch)
        result = self._build(recipe, tensors)
        self._enter_scratch(scratch)
        self._forget_written(args, kwargs, facts)
        return result

    def _inputs_small(self, tensors: Iterable[torch.Tensor]) -> bool:
        return sum([tensor.numel() * tensor.dtype.itemsize for tensor in tensors]) <= 64 << 20

    def _learn(self, func: Any, args: Any, kwargs: Any) -> tuple[Recipe, int] | None:
        """The recipe and scratch of a new signature; None where values decide the shape or nothing but a run tells."""
        try:
            recipe = infer(func, args, kwargs)
        except DATA_DEPENDENT:
            return None
        except (RuntimeError, NotImplementedError, TypeError, ValueError, AssertionError):
            return None
        outputs = self._hollow_outputs(recipe, flat_tensors(args, kwargs))
        return recipe, scratch_bytes(func, args, kwargs, outputs)

    def _hollow_outputs(self, recipe: Recipe, tensors: list[torch.Tensor]) -> Any:
        storages = [hollow_storage(nbytes) for nbytes in recipe.groups]
        leaves: list[Any] = []
        for row in recipe.outputs:
            if type(row) is Fresh:
                leaves.append(hollow_tensor(storages[row.group], row.shape, row.stride, row.dtype, row.offset))
            elif type(row) is Constant:
                leaves.append(row.value)
            else:
                assert type(row) is Alias
                leaves.append(_aliased(row, tensors[row.index]))
        return recipe.rebuild(leaves)

    def _build(self, recipe: Recipe, tensors: list[torch.Tensor]) -> Any:
        """Hollow outputs, entered on the tape."""
        result = self._hollow_outputs(recipe, tensors)
        if isinstance(result, torch.Tensor):
            self.enter(result, known=False)
        else:
            for tensor in flat_tensors((result,), {}):
                self.enter(tensor, known=False)
        return result

    def _on_stand_ins(
        self,
        func: Any,
        args: Any,
        kwargs: Any,
        facts: OpFacts,
        tensors: list[torch.Tensor],
        all_known: bool,
        scratch: int = -1,
    ) -> Any:
        """Run the op on stand-ins for the unknown arguments; its integers become known, its floats hollow."""
        replaced: dict[int, torch.Tensor] = {}

        def real(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                if value.untyped_storage()._cdata in self._known:
                    return value.clone() if facts.mutates else value
                if id(value) not in replaced:
                    replaced[id(value)] = stand_in(value, self._generator, positive="multinomial" in facts.name)
                return replaced[id(value)]
            if isinstance(value, (list, tuple)):
                return type(value)([real(item) for item in value])
            return value

        real_args, real_kwargs = real(args), {name: real(value) for name, value in kwargs.items()}
        outputs = func(*real_args, **real_kwargs)
        recipe = recipe_of(outputs, flat_tensors(real_args, real_kwargs))
        flat_real: list[Any] = []
        _leaves(outputs, flat_real)
        storages = [hollow_storage(nbytes) for nbytes in recipe.groups]
        leaves: list[Any] = []
        for row, value in zip(recipe.outputs, flat_real, strict=True):
            if isinstance(row, Fresh):
                if not row.dtype.is_floating_point and is_small(row.dtype, row.nbytes):
                    self.enter(value, known=True)
                    leaves.append(value)
                else:
                    tensor = hollow_tensor(storages[row.group], row.shape, row.stride, row.dtype, row.offset)
                    self.enter(tensor, known=False)
                    leaves.append(tensor)
            elif isinstance(row, Constant):
                leaves.append(row.value)
            else:
                leaves.append(_aliased(row, tensors[row.index]))
        result = recipe.rebuild(leaves)
        self._enter_scratch(scratch_bytes(func, args, kwargs, result) if scratch < 0 else scratch)
        self._forget_written(args, kwargs, facts)
        return result

    def _forget_written(self, args: Any, kwargs: Any, facts: OpFacts) -> None:
        """What an op with outputs of its own also writes is unknown from now on; ``out=`` takes its new shape."""
        for where in facts.mutates:
            target = args[where] if isinstance(where, int) and where < len(args) else kwargs.get(str(where))
            for tensor in flat_tensors((target,), {}):
                self._forget(tensor)

    def _forget(self, tensor: torch.Tensor) -> None:
        self._known.discard(tensor.untyped_storage()._cdata)

    def _enter_scratch(self, nbytes: int) -> None:
        if nbytes > 0 and self._recording:
            index, op = len(self.born), len(self.ops) - 1
            self.born.append((nbytes, op, (), ""))
            self.scratch.add(index)
            self.events.append((index, nbytes, op))
            self.events.append((index, -nbytes, op))


def _is_integer(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex or dtype is torch.bool)


def _aliased(row: Alias, base: torch.Tensor) -> torch.Tensor:
    if not row.itself:
        return base.as_strided(row.shape, row.stride, row.offset)
    if tuple(base.shape) != row.shape:
        needed = storage_bytes(row.shape, row.stride, base.dtype.itemsize, row.offset)
        storage = base.untyped_storage() if needed <= base.untyped_storage().nbytes() else hollow_storage(needed)
        base.set_(storage, row.offset, row.shape, row.stride)
    return base


def _leaves(value: Any, into: list[Any]) -> None:
    if isinstance(value, (list, tuple)):
        for item in value:
            _leaves(item, into)
    else:
        into.append(value)


def _parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The dense tensors behind a sparse one."""
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    return []
