"""A ``.pt2`` file, or a model exported here, -> a smaller one: captured, exact passes, written, run beside the original.

The passes work on a form without writing in place, and what dies is written over again at the end. The new model is exported
anew, so that the file is one that ``torch.export.load`` reads, and its open axes are held against those of the original.

Cost: exporting takes seconds.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from memfit.analyses.lowering import numbers_for
from memfit.errors import CaptureError, TargetError, VerifyError
from memfit.files import write_atomically
from memfit.frameworks.comparing import Compared, compare_calls
from memfit.frameworks.torch.exported_apply import Applied, Bench, Values, bytes_of
from memfit.frameworks.torch.exported_capture import Exported, captured_file, writes_what_stays
from memfit.frameworks.torch.exported_in_place import functional, in_place_where_dying
from memfit.frameworks.torch.exported_rewrites import REWRITES
from memfit.frameworks.torch.steps import is_training
from memfit.ir.dimension import symbols
from memfit.ir.program import Constant, Program, Type
from memfit.ir.step import Step
from memfit.passes.exact import optimize_program, possible_samples, totals


class Smaller:
    """``program`` and what the passes made of it (``optimized``); see ``api.optimizing_programs``."""

    def __init__(
        self, exported: Exported, bound: Mapping[str, int], reorder: bool, progress: Callable[[str], None] | None,
        *, has_file: bool = True,
    ) -> None:  # fmt: skip
        self.captured, self.program, self._has_file = exported, exported.program, has_file
        self.folder: Any = None  # what must stay as long as the file is mapped
        stays = writes_what_stays(self.program)
        if stays:
            what = exported.names.get(stays, stays)
            raise TargetError(
                self.program.name, f"it writes over {what!r}, so what it computes is not its outputs alone",
                "export the model at inference, in evaluation mode",
            )  # fmt: skip
        plain, why = functional(self.program)
        if why:
            raise TargetError(self.program.name, why, "write that line of the model without in-place operations")
        self.values = Values(exported)
        self.optimized = optimize_program(
            one_content_once(plain, self.values), Bench(self.values), rewrites=REWRITES, bound=bound, reorder=reorder,
            progress=progress,
        )  # fmt: skip
        again = in_place_where_dying(self.optimized.program)
        samples = possible_samples(self.program, bound)
        if any(a > b for a, b in zip(totals(again, bound, samples), totals(self.program, bound, samples), strict=True)):
            again = self.program  # the original wrote in place what the passes' form cannot
        self.optimized = replace(self.optimized, program=again)
        self.applied = Applied(exported, again, self.values).eval()

    def before_bytes(self) -> int:
        """Bytes of the model's file; of its constants where it has none."""
        return self.captured.file.path.stat().st_size if self._has_file else self.program.constant_bytes

    def node_count(self) -> int:
        """Operations of the new model."""
        return self.optimized.program.node_count

    def compare(self, bound: Mapping[str, int]) -> Compared:
        """Outputs of both at two sizes."""
        original = Applied(self.captured, self.program, self.values).eval()
        hints = {name: self.captured.hints[name] for name in self.program.dimensions if name in self.captured.hints}
        try:
            return compare_calls(
                self.program, _runner(original, self.program), _runner(self.applied, self.program), bound
            )
        except TargetError:
            if not hints:
                raise
            return compare_calls(
                self.program, _runner(original, self.program), _runner(self.applied, self.program), {**hints, **bound}
            )

    def write(self, output: str | None) -> int:
        """Write the new ``.pt2`` file; its bytes. A function has none: those of its constants.

        Raises:
            TargetError: the name is that of another kind of file.
        """
        if output is None:
            return self.optimized.program.constant_bytes if not self._has_file else len(self._file())
        if Path(output).suffix != ".pt2":
            raise TargetError(output, "a model of PyTorch's is written as .pt2", "name it so")
        return write_atomically(output, self._file())

    def _file(self) -> bytes:
        given, shapes = self._example()
        try:
            with torch.no_grad():
                made = torch.export.export(self.applied, given, dynamic_shapes=shapes, strict=False)
            buffer = io.BytesIO()
            torch.export.save(made, buffer)
        except Exception as error:  # whatever the exporter raises
            first = (str(error).strip().splitlines() or [""])[0][:200]
            raise CaptureError(f"the new model cannot be exported ({type(error).__name__}: {first})") from error
        data = buffer.getvalue()
        self._check_axes(data)
        return data

    def _example(self) -> tuple[tuple[Any, ...], Any]:
        numbers = numbers_for(self.program, {}, default=4) | self.captured.hints
        given: list[Any] = []
        shapes: list[Any] = []
        for name, value in self.captured.arguments:
            if name is None:
                given.append(value)
                shapes.append(None)
                continue
            made = self.program.types[name]
            sizes = [size if isinstance(size, int) else _number(size, numbers) for size in made.shape or ()]
            if (
                not sizes
                and made.dtype == "int64"
                and name in self.captured.file.model["graph_module"]["graph"]["sym_int_values"]
            ):
                raise CaptureError(f"its input {name!r} is a number, not a tensor")
            given.append(torch.zeros(sizes, dtype=getattr(torch, made.dtype)))
            shapes.append({
                axis: torch.export.Dim.AUTO for axis, size in enumerate(made.shape or ()) if not isinstance(size, int)
            })  # fmt: skip
        return tuple(given), {"args": tuple(shapes)}

    def _check_axes(self, data: bytes) -> None:
        """The new file has the open axes of the original.

        Raises:
            VerifyError: one of them is fixed.
        """
        with tempfile.TemporaryDirectory(prefix="memfit-") as folder:
            path = Path(folder) / "model.pt2"
            path.write_bytes(data)
            written = captured_file(path).program
        axes = [[_open_axes(program.types[name]) for name in program.inputs] for program in (self.program, written)]
        if axes[0] != axes[1]:
            raise VerifyError("open axes of the new model", axes[0], axes[1])


def _number(size: Any, numbers: Mapping[str, int]) -> int:
    from memfit.ir.dimension import number

    return number(size, numbers)


def _open_axes(given: Type) -> list[int]:
    return [axis for axis, size in enumerate(given.shape or ()) if symbols([size])]


def _runner(applied: Applied, program: Program) -> Callable[..., list[Any]]:
    kinds = [getattr(torch, program.types[name].dtype) for name in program.inputs]

    def call(*arrays: Any) -> list[Any]:
        given = [torch.as_tensor(array).to(kind).clone() for array, kind in zip(arrays, kinds, strict=True)]
        with torch.no_grad():
            found = applied.flat(*given)
        return [_array(value) for value in found if value is not None]

    return call


def _array(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach()
    return value.float().numpy() if value.dtype is torch.bfloat16 else value.numpy()


def one_content_once(program: Program, values: Values) -> Program:
    """Constants of equal bytes get one reference; only those of equal type are read and held against each other."""
    import hashlib

    groups: dict[Type, list[str]] = {}
    for name, constant in program.constants.items():
        groups.setdefault(constant.type, []).append(name)
    same: dict[str, Constant] = {}
    for names in groups.values():
        if len({program.constants[name].reference for name in names}) < 2:
            continue
        seen: dict[bytes, str] = {}
        for name in names:
            content = hashlib.blake2b(bytes_of(values(program.constants[name].reference)), digest_size=16).digest()
            same[name] = program.constants[seen.setdefault(content, name)]
    return replace(program, constants={**program.constants, **same}) if same else program


def exported_step(step: Step, name: str, folder: str | Path) -> Exported:
    """A step of PyTorch's, exported here with every axis open that can be, as a file in ``folder``.

    Raises:
        TargetError: it trains; CaptureError: ``torch.export`` cannot capture it.
    """
    if is_training(step) or step.run is not None or not isinstance(step.model, torch.nn.Module):
        raise TargetError(
            name, "exact passes take models at inference, and this step trains",
            "return (model, inputs) without a loss, or use `memfit fit` for training",
        )  # fmt: skip
    inputs = step.inputs
    args = () if isinstance(inputs, dict) else tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    kwargs = inputs if isinstance(inputs, dict) else {}
    model = step.model.eval()
    path = Path(folder) / "model.pt2"
    try:
        with torch.no_grad():
            program = _export(model, args, kwargs)
        torch.export.save(program, path)
    except Exception as error:  # whatever the exporter raises
        first = (str(error).strip().splitlines() or [""])[0][:300]
        raise CaptureError(f"torch.export cannot capture it ({type(error).__name__}: {first})") from error
    found = captured_file(path)
    return replace(found, program=replace(found.program, name=name))


def _export(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    shapes = torch.utils._pytree.tree_map(_all_open, (args, kwargs))
    import inspect

    names = list(inspect.signature(model.forward).parameters)
    by_name = dict(zip(names, shapes[0], strict=False)) | shapes[1]
    try:
        return torch.export.export(model, args, kwargs, dynamic_shapes=by_name, strict=False)
    except Exception:  # an axis that cannot be open: as PyTorch would export it by itself
        return torch.export.export(model, args, kwargs, strict=False)


def _all_open(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return None
    return {axis: torch.export.Dim.AUTO for axis, size in enumerate(value.shape) if size > 1}
