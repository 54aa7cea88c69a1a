"""What torch says of recorded operations: which only call others, how a name is written, which frames are a reader's.

``aten::addmm`` is shown as ``aten.addmm.default``, as a projection names it. A composite operation (CompositeImplicit:
it only calls others) is passed over for the kernels it calls.
"""

from __future__ import annotations

import contextlib
import traceback
from functools import cache
from pathlib import Path
from typing import Any

import torch

from memfit.ir.recording import PythonFrame

_TORCH = str(Path(torch.__file__).parent)
_MEMFIT = str(Path(__file__).parents[2])
_PASSED_OVER = (_TORCH, _MEMFIT, "<")


@cache
def is_composite(name: str) -> bool:
    """Whether the operation ``name`` (``aten::linear``) has only a kernel that calls other operations."""
    qualified, _, overload = name.partition(".")
    text = f"{qualified}.{overload}" if overload else qualified
    try:
        return bool(torch._C._dispatch_has_kernel_for_dispatch_key(text, "CompositeImplicitAutograd"))
    except RuntimeError:  # not registered under this name
        return False


def is_optimizer(name: str) -> bool:
    """Whether the user scope ``name`` is an optimizer's step (torch.optim opens one)."""
    return name.startswith("Optimizer.step#")


@cache
def op_name(name: str) -> str:
    """``aten::mean.dim`` -> ``aten.mean.dim``, ``aten::addmm`` -> ``aten.addmm.default``; other names as they are."""
    space, colons, rest = name.partition("::")
    if not colons or not space.isidentifier():
        return name
    operation, _, overload = rest.partition(".")
    return f"{space}.{operation}.{overload or 'default'}"


@cache
def place(frame: PythonFrame) -> str:
    """``file:line`` of a frame as shown to people; empty for frames of torch, memfit and generated code."""
    if frame.file.startswith(_PASSED_OVER):
        return ""
    path = Path(frame.file)
    for marker in ("site-packages", "dist-packages"):
        if marker in path.parts:
            return f"{Path(*path.parts[path.parts.index(marker) + 1 :])}:{frame.line}"
    with contextlib.suppress(ValueError):
        return f"{path.relative_to(Path.cwd())}:{frame.line}"
    return str(frame)


def place_of_error(error: BaseException) -> str:
    """``file:line`` of the innermost frame of an error that is a reader's; empty where there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    places = (place(PythonFrame(frame.filename, frame.lineno or 0, frame.name)) for frame in reversed(frames))
    return next(filter(None, places), "")


def module_names(model: Any) -> dict[int, str]:
    """Qualified names by address; the model itself under its class name."""
    if not isinstance(model, torch.nn.Module):
        return {}
    return {id(module): name or type(module).__name__ for name, module in model.named_modules()}
