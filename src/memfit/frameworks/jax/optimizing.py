"""A JAX step -> a smaller Program, run beside the original; written as what ``jax.export`` serialises, if asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from memfit.errors import TargetError
from memfit.files import write_atomically
from memfit.frameworks.comparing import Compared, compare_calls
from memfit.frameworks.jax.apply import apply, evaluate
from memfit.frameworks.jax.capture import Capture, capture, type_of
from memfit.frameworks.jax.steps import jax_step
from memfit.ir.program import Constant, Operation, Program
from memfit.ir.step import Step
from memfit.passes.exact import optimize_program


class Bench:
    """A ``passes.workbench.Workbench`` over one captured function."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def array(self, constant: Constant) -> Any:
        """The constant as an array."""
        return np.asarray(self.values[constant.reference])

    def keep(self, array: Any) -> Constant:
        """The constant with an array's content."""
        kind = type_of(jax.typeof(array))
        content = hashlib.sha256(np.ascontiguousarray(np.asarray(array)).tobytes()).hexdigest()[:24]
        reference = f"{kind}:{content}"
        self.values.setdefault(reference, array)
        return Constant(kind, reference)

    def evaluate(
        self, program: Program, operations: Sequence[Operation], wanted: Sequence[str]
    ) -> Mapping[str, Any] | None:
        """Values of ``wanted`` that ``operations`` make out of constants; None where JAX refuses."""
        read = {name for operation in operations for name in operation.reads}
        constants = {name: c for name, c in program.constants.items() if name in read}
        part = Program((), tuple(wanted), tuple(operations), program.types, constants, "fold")
        try:
            return dict(zip(wanted, evaluate(part, [], self.values, {}), strict=True))
        except Exception:  # primitives raise their own kinds where they cannot run alone
            return None


def _key(leaf: Any, kind: Any) -> Any:
    """The bits of a random key as the key that the function takes; anything else as it is."""
    if not hasattr(kind, "dtype") or not jax.dtypes.issubdtype(kind.dtype, jax.dtypes.prng_key):
        return leaf
    return jax.random.wrap_key_data(leaf, impl=kind.dtype._impl.name)


class Smaller:
    """``program`` and what the passes made of it (``optimized``); see ``api.optimizing_programs``."""

    def __init__(
        self, step: Step, name: str, bound: Mapping[str, int], reorder: bool, progress: Callable[[str], None] | None
    ) -> None:
        whole = jax_step(step, name)
        self._function, self._arguments = whole.whole(), whole.arguments()
        self.captured: Capture = capture(self._function, self._arguments, name=name)
        self.program = self.captured.program
        bench = Bench(self.captured.values)
        self.optimized = optimize_program(self.program, bench, bound=bound, reorder=reorder, progress=progress)
        self.applied = apply(self.captured, self.optimized.program)

    def before_bytes(self) -> int:
        """Bytes of the constants: a function has no file."""
        return self.program.constant_bytes

    def node_count(self) -> int:
        """Operations of the new model."""
        return self.optimized.program.node_count

    def compare(self, bound: Mapping[str, int]) -> Compared:
        """Outputs of both at two sizes, compiled as they will be run."""
        original, applied = (self._runner(jax.jit(f)) for f in (self._function, self.applied))
        return compare_calls(self.program, original, applied, bound)

    def _runner(self, function: Callable[..., Any]) -> Callable[..., list[Any]]:
        kinds = jax.tree.leaves(self._arguments)

        def call(*leaves: Any) -> list[Any]:
            leaves = tuple(_key(leaf, kind) for leaf, kind in zip(leaves, kinds, strict=True))
            return [np.asarray(x) for x in jax.tree.leaves(function(*jax.tree.unflatten(self.captured.inputs, leaves)))]

        return call

    def write(self, output: str | None) -> int:
        """Write what ``jax.export`` serialises; its bytes, those of the constants where nothing is written."""
        if output is None:
            return self.optimized.program.constant_bytes
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self._arguments)
        try:
            data: bytes = jax.export.export(jax.jit(self.applied))(*shapes).serialize()
        except Exception as error:  # callbacks, types of results that nobody registered, primitives of its own
            first = (str(error).strip().splitlines() or [""])[0][:300]
            raise TargetError(
                self.program.name, f"jax.export cannot write it ({type(error).__name__}: {first})",
                "leave --output out for the report alone",
            ) from error  # fmt: skip
        return write_atomically(output, data)
