"""A JAX function and example arguments -> Program: the jaxpr with its symbols, calls inlined, bodies of loops and branches.

    add, dot_general, ...      one operation each, ``jax.<primitive>``, parameters as attributes
    jit, custom_jvp, custom_vjp, closed_call      inlined: they change nothing about memory
    scan, while, cond, remat of a backward pass   operations with bodies; a body's arguments are explicit

Recomputation that ``jax.checkpoint`` placed in a backward pass stays an operation of its own: merged with the forward pass
it would be undone. Values of constants stay in the Capture; the Program names them by content. Dimensions are those of
``jax.export.symbolic_shape``.

Cost: one trace of the function on abstract values, nothing computed; a hash of every array it closes over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax._src import source_info_util
from jax.extend import core

from memfit.errors import CaptureError
from memfit.ir.dimension import Shape, Size, parse_size
from memfit.ir.program import Constant, Operation, Program, Type
from memfit.machine.own_code import place

_INLINED = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr",
            "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr", "custom_vjp_call_jaxpr": "fun_jaxpr"}  # fmt: skip
_JAX = str(Path(jax.__file__).parent)
_RECOMPUTED = ("remat", "remat2", "checkpoint")


@dataclass(frozen=True)
class Capture:
    """``program``; ``values``: constants by reference; ``inputs``/``outputs``: tree of the arguments and of the result."""

    program: Program
    values: dict[str, Any]
    inputs: Any
    outputs: Any


class Held:
    """A parameter of a primitive that has no hash (a dict, a list): equal to itself only."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"<{type(self.value).__name__}>"


def capture(
    function: Callable[..., Any], arguments: tuple[Any, ...], *, name: str = "", keep_rules: bool = False
) -> Capture:
    """The Program of ``function(*arguments)``.

    Args:
        function: anything ``jax.make_jaxpr`` traces; a compiled one is looked into.
        arguments: trees of arrays or ``jax.ShapeDtypeStruct``, whose shapes may hold named dimensions.
        name: what reports call it.
        keep_rules: custom derivative rules and checkpoints stay operations, so that what ``apply`` makes of the
            Program may be differentiated; otherwise differentiate first and capture then.

    Raises:
        CaptureError: the function raises while it is traced (a branch on a value, a wrong shape), with JAX's reason.
    """
    try:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    except Exception as error:
        first = str(error).strip().splitlines()
        raise CaptureError(f"{type(error).__name__}: {first[0] if first else ''}", _line_of(error, function)) from error
    leaves, tree = jax.tree.flatten(arguments)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(arguments)]
    writer = _Writer(keep_rules)
    program = writer.program(closed.jaxpr, closed.consts, name or getattr(function, "__name__", "function"))
    program = Program(
        program.inputs, program.outputs, program.operations, program.types, program.constants, program.name,
        {"labels": dict(zip(program.inputs, paths, strict=True))},
    )  # fmt: skip
    assert len(leaves) == len(program.inputs)
    return Capture(program, writer.values, tree, jax.tree.structure(shapes))


def type_of(aval: Any) -> Type:
    """The Type of an abstract value; a random key counts as the bits it is made of."""
    dtype = str(getattr(aval, "dtype", "bool"))
    shape: Shape = tuple(_size(size) for size in getattr(aval, "shape", ()))
    if dtype.startswith("key<"):
        return Type("uint32", (*shape, {"key<rbg>": 4, "key<unsafe_rbg>": 4}.get(dtype, 2)))
    return Type("bool" if dtype == "float0" else dtype, shape)


def _size(size: Any) -> Size:
    return int(size) if isinstance(size, int | np.integer) else parse_size(str(size).replace("^", "**"))


def _line_of(error: Exception, function: Callable[..., Any]) -> str:
    """The innermost line of the user's own that was running."""
    frame, found = error.__traceback__, ""
    while frame is not None:
        path = frame.tb_frame.f_code.co_filename
        if not path.startswith(_JAX) and "memfit/frameworks" not in path and not path.startswith("<"):
            found = f"{path}:{frame.tb_lineno}"
        frame = frame.tb_next
    return found


class _Writer:
    """Jaxprs -> Programs. Names are v0, v1, ... and c0, c1, ..., unique in a whole program with its bodies."""

    def __init__(self, keep_rules: bool = False) -> None:
        self.values: dict[str, Any] = {}
        self.count = 0
        self.kept = frozenset(key for key in _INLINED if key.startswith("custom")) if keep_rules else frozenset()

    def name(self, letter: str = "v") -> str:
        """A name that no value has yet."""
        self.count += 1
        return f"{letter}{self.count - 1}"

    def program(self, jaxpr: Any, consts: Any, name: str) -> Program:
        """The Program of one jaxpr."""
        level = _Level(self)
        for variable, value in zip(jaxpr.constvars, consts, strict=True):
            level.names[variable] = level.constant(value)
        inputs = []
        for variable in jaxpr.invars:
            inputs.append(self.name())
            level.names[variable] = inputs[-1]
            level.types[inputs[-1]] = type_of(variable.aval)
        level.equations(jaxpr)
        outputs = tuple(level.read(atom) for atom in jaxpr.outvars)
        return Program(tuple(inputs), outputs, tuple(level.operations), level.types, level.constants, name)


class _Level:
    """One program while it is written."""

    def __init__(self, writer: _Writer) -> None:
        self.writer = writer
        self.names: dict[Any, str] = {}
        self.types: dict[str, Type] = {}
        self.constants: dict[str, Constant] = {}
        self.operations: list[Operation] = []
        self._known: dict[Hashable, str] = {}

    def constant(self, value: Any, aval: Any = None) -> str:
        """The name of a constant; equal contents are one."""
        kind = type_of(aval if aval is not None else jax.typeof(value))
        key = jax.dtypes.issubdtype(getattr(value, "dtype", np.float32), jax.dtypes.prng_key)
        data = np.asarray(jax.random.key_data(value) if key else value)
        content = hashlib.sha256(np.ascontiguousarray(data).tobytes()).hexdigest()[:24]
        weak = bool(getattr(aval, "weak_type", False))
        reference = f"{kind}:{content}" + (":weak" if weak else "")
        self.writer.values.setdefault(reference, value)
        if reference not in self._known:
            name = self.writer.name("c")
            self._known[reference] = name
            self.types[name] = kind
            self.constants[name] = Constant(kind, reference)
        return self._known[reference]

    def read(self, atom: Any) -> str:
        """The name of a variable or literal."""
        return self.constant(atom.val, atom.aval) if isinstance(atom, core.Literal) else self.names[atom]

    def equations(self, jaxpr: Any) -> None:
        """Append every equation, inlined where it only calls."""
        for equation in jaxpr.eqns:
            kind = equation.primitive.name
            recomputed = kind in _RECOMPUTED and (self.writer.kept or equation.params.get("differentiated"))
            if kind not in self.writer.kept and not recomputed and (kind in _INLINED or kind in _RECOMPUTED):
                self._inline(equation, equation.params[_INLINED.get(kind, "jaxpr")])
            else:
                self._operation(equation)

    def _inline(self, equation: Any, inner: Any) -> None:
        closed = hasattr(inner, "consts")
        jaxpr = inner.jaxpr if closed else inner
        if closed:
            for variable, value in zip(jaxpr.constvars, inner.consts, strict=True):
                self.names[variable] = self.constant(value)
        for variable, atom in zip(jaxpr.invars, equation.invars, strict=True):
            self.names[variable] = self.read(atom)
        self.equations(jaxpr)
        for variable, atom in zip(equation.outvars, jaxpr.outvars, strict=True):
            self.names[variable] = self.read(atom)

    def _operation(self, equation: Any) -> None:
        attributes: list[tuple[str, Any]] = []
        bodies: list[tuple[str, Program]] = []
        for key, value in sorted(equation.params.items()):
            if callable(value) and equation.primitive.name in self.writer.kept:
                attributes.append((key, Held(value)))
                continue
            inner = value if isinstance(value, tuple) and value and all(_is_jaxpr(v) for v in value) else (value,)
            if all(_is_jaxpr(v) for v in inner):
                for index, jaxpr in enumerate(inner):
                    where = key if len(inner) == 1 and inner is not value else f"{key}[{index}]"
                    bodies.append(
                        (where, self._body(jaxpr, f"{equation.primitive.name}.{where}", _given(equation, key)))
                    )
            attributes.append((key, _hashable(value)))
        if equation.effects:
            attributes.append(("effects", tuple(sorted(str(effect) for effect in equation.effects))))
        attributes.append(("primitive", equation.primitive))
        inputs = tuple(self.read(atom) for atom in equation.invars)
        outputs = []
        for variable in equation.outvars:
            outputs.append("" if isinstance(variable, core.DropVar) else self.writer.name())
            self.names[variable] = outputs[-1]
            if outputs[-1]:
                self.types[outputs[-1]] = type_of(variable.aval)
        label = _label(equation)
        self.operations.append(
            Operation(
                f"jax.{equation.primitive.name}",
                inputs,
                tuple(outputs),
                tuple(sorted(attributes, key=lambda a: a[0])),
                tuple(bodies),
                label,
            )
        )

    def _body(self, inner: Any, name: str, given: Any) -> Program:
        closed = hasattr(inner, "consts")
        program = self.writer.program(inner.jaxpr if closed else inner, inner.consts if closed else (), name)
        return replace(program, name=name, meta={"jaxpr": inner, "outside": frozenset(program.inputs[given])})


def _given(equation: Any, key: str) -> slice:
    """Which inputs of a body are values that exist outside of it: not a loop's state, nor a turn's slice."""
    kind, parameters = equation.primitive.name, equation.params
    if kind == "scan":
        return slice(0, parameters["num_consts"])
    if kind == "while":
        return slice(0, parameters["cond_nconsts" if key == "cond_jaxpr" else "body_nconsts"])
    return slice(None) if kind == "cond" else slice(0)


def _label(equation: Any) -> str:
    """``name stack @ file:line`` of the user's own line."""
    if equation.source_info is None:
        return ""
    line = source_info_util.summarize(equation.source_info).partition(" (")[0]
    file, _, number = line.rpartition(":")
    stack = str(equation.source_info.name_stack)
    return f"{stack} @ {place(file, int(number))}" if number.isdecimal() else stack


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, core.ClosedJaxpr | core.Jaxpr)


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return Held(value)
    return value
