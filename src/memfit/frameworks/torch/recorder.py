"""Where in a program we are: step, phase, module and source line of the op that runs, found cheaply.

The module comes from a stack kept by a wrapper of ``nn.Module.__call__`` (global hooks would switch fast paths off),
the line from the innermost frame outside PyTorch and memfit. In the backward pass neither exists; the autograd node's
sequence number leads back to the forward op that made it.
"""

from __future__ import annotations

import contextlib
import linecache
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import torch
from torch import nn

_TORCH = str(Path(torch.__file__).parent)
_MEMFIT = str(Path(__file__).parents[2])
_BACKWARD, _STOP = "<backward pass>", "<memfit>"


class Location:
    """The place in the program. ``step`` and ``phase`` are set by whoever runs the steps; ``where`` answers per op.

    ``calls`` counts module calls.
    """

    def __init__(self) -> None:
        self.step = -1
        self.phase = "build"
        self.calls = 0
        self._modules: list[nn.Module] = []
        self._names: dict[int, str] = {}
        self._files: dict[CodeType, str | None] = {}
        self._forward: dict[int, tuple[str, str]] = {}

    def name_modules(self, model: Any) -> None:
        """Learn the qualified names of a model's modules."""
        if isinstance(model, nn.Module):
            self._names = {id(module): name for name, module in model.named_modules()}

    @contextlib.contextmanager
    def watching_modules(self) -> Iterator[None]:
        """Keep the stack of modules while the context is open."""
        original = nn.Module.__call__
        stack = self._modules

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            stack.append(module)
            self.calls += 1
            try:
                return original(module, *args, **kwargs)
            finally:
                stack.pop()

        nn.Module.__call__ = call  # type: ignore[method-assign]
        try:
            yield
        finally:
            nn.Module.__call__ = original  # type: ignore[method-assign]

    def where(self) -> tuple[str, str]:
        """(module name, ``file:line``) of the op that runs now. Cost: a few microseconds."""
        line, in_engine = self._line()
        if in_engine:
            node = torch._C._current_autograd_node()
            return self._forward.get(node._sequence_nr(), ("", "")) if node is not None else ("", "")
        module = ""
        for entry in reversed(self._modules):
            name = self._names.get(id(entry))
            if name is not None:
                module = name
                break
        result = (module, line)
        if self.phase == "forward":
            self._forward.setdefault(torch._C._autograd._get_sequence_nr() - 1, result)
        return result

    def forget_forward(self) -> None:
        """Drop what the backward pass looks up; call it between steps."""
        self._forward.clear()

    def _line(self) -> tuple[str, bool]:
        frame: Any = sys._getframe(4)
        files = self._files
        while frame is not None:
            code = frame.f_code
            try:
                file = files[code]
            except KeyError:
                file = files[code] = shown_file(code)
            if file is _STOP or file is _BACKWARD:
                return "", file is _BACKWARD
            if file is not None:
                return f"{file}:{frame.f_lineno}", False
            frame = frame.f_back
        return "", False


def asking() -> tuple[str, str]:
    """File and text of the innermost line of Python that is neither memfit's nor part of the dispatch to it."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((_MEMFIT, "<")) and not name.endswith(("/_compile.py", "/eval_frame.py")):
            return name, linecache.getline(name, frame.f_lineno)
        frame = frame.f_back
    return "", ""


def shown_file(code: CodeType) -> str | None:
    """The file as shown to people; None for a frame to pass over, or a sign that nothing of the program is above."""
    name = code.co_filename
    if name.endswith("graph.py") and code.co_name == "_engine_run_backward":
        return _BACKWARD
    if name.startswith(_MEMFIT) and code.co_name in ("run_step", "_trace"):
        return _STOP
    if name.startswith((_TORCH, _MEMFIT, "<")):
        return None
    path = Path(name)
    for marker in ("site-packages", "dist-packages"):
        if marker in path.parts:
            return str(Path(*path.parts[path.parts.index(marker) + 1 :]))
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return name
