"""Count the iterations of a program's loops without being asked: each loop of its own files gets one call at its top.

The source is parsed, ``__memfit_turn__(n)`` put first into the body of every ``for`` and ``while`` that can allocate (it
calls something, or assigns to an element), and ``try ... finally: __memfit_loop_end__(n)`` around the outermost loops of
each function, so that the moment when a loop ends, its function's variables still alive, is known. Line numbers stay as
they were. Only files of the script's own folder are changed, in memory. Cost: 0.1 us an iteration; a loop that turns
more often than the watcher can use costs the same, and is not looked at. The two names are found among the builtins.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import CodeType, ModuleType
from typing import Any

TURN, END = "__memfit_turn__", "__memfit_loop_end__"
_LARGEST = 2_000_000


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop of the program. ``depth``: loops around it in the same function."""

    path: str
    line: int
    function: str
    depth: int

    @property
    def name(self) -> str:
        """What to call it."""
        return f"loop at {os.path.basename(self.path)}:{self.line}"


class _Marker(ast.NodeTransformer):
    def __init__(self, path: str, loops: list[Loop]) -> None:
        self._path, self._loops = path, loops
        self._function, self._depth = "", 0

    def _scope(self, node: Any) -> Any:
        kept = self._function, self._depth
        self._function, self._depth = node.name, 0
        self.generic_visit(node)
        self._function, self._depth = kept
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _scope  # noqa: N815 - named by ast

    def _loop(self, node: Any) -> Any:
        works = any(
            isinstance(part, (ast.Call, ast.Await, ast.Yield, ast.YieldFrom))
            or (isinstance(part, ast.Subscript) and isinstance(part.ctx, ast.Store))
            for statement in node.body
            for part in ast.walk(statement)
        )
        number = len(self._loops)
        if works:
            self._loops.append(Loop(self._path, node.lineno, self._function, self._depth))
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1
        if not works:
            return node
        node.body.insert(0, _call(TURN, number, node.body[0]))
        if self._depth:
            return node
        end = _call(END, number, node)
        return ast.copy_location(ast.Try(body=[node], handlers=[], orelse=[], finalbody=[end]), node)

    visit_For = visit_While = visit_AsyncFor = _loop  # noqa: N815 - named by ast


def _call(name: str, number: int, at: ast.AST) -> ast.stmt:
    call = ast.Expr(ast.Call(ast.Name(name, ast.Load()), [ast.Constant(number)], []))
    return ast.fix_missing_locations(ast.copy_location(call, at))


def marked_code(source: bytes, path: str, loops: list[Loop]) -> CodeType:
    """The code of a file with its loops marked; new loops are added to ``loops``, whose indices are the numbers.

    Raises:
        SyntaxError, ValueError: the source cannot be compiled, as without marks.
    """
    tree = ast.parse(source, path)
    known = len(loops)
    try:
        marked = _Marker(path, loops).visit(tree)
        return compile(ast.fix_missing_locations(marked), path, "exec", dont_inherit=True)
    except RecursionError:
        del loops[known:]
        return compile(source, path, "exec", dont_inherit=True)


class MarkingFinder(importlib.abc.MetaPathFinder):
    """Marks the loops of modules that lie under ``folder`` as they are imported (``loops`` None: of no module).

    ``after``: module name -> what to call with that module once it is imported.
    """

    def __init__(self, folder: str, loops: list[Loop] | None, after: dict[str, Callable[[ModuleType], None]]) -> None:
        self._folder = os.path.join(os.path.abspath(folder), "")
        self._loops, self._after = loops, after

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """The spec that Python finds, with a loader that marks loops or calls back; None for all others."""
        if self._loops is None and name not in self._after:
            return None
        if name not in self._after and path is not None and not self._concerns(path):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader) or not spec.origin:
            return None
        if name in self._after:
            spec.loader = _TellingLoader(name, spec.origin, self._after[name])
            return spec
        if self._loops is None:
            return None
        rest = spec.origin.removeprefix(self._folder)
        if rest == spec.origin or "site-packages" in rest or rest.startswith((".venv", "venv", "build")):
            return None
        if spec.origin.startswith((sys.prefix + os.sep, sys.base_prefix + os.sep)):
            return None
        spec.loader = _MarkingLoader(name, spec.origin, self._loops)
        return spec

    def _concerns(self, path: Sequence[str]) -> bool:
        """Whether a package with its parts at ``path`` may be the program's own."""
        try:
            return any(part.startswith(self._folder) and "site-packages" not in part for part in path)
        except TypeError:
            return True


class _MarkingLoader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, loops: list[Loop]) -> None:
        super().__init__(name, path)
        self._loops = loops

    def get_code(self, fullname: str) -> CodeType | None:
        data = self.get_data(self.path)
        if len(data) > _LARGEST:
            return super().get_code(fullname)
        try:
            return marked_code(data, str(self.path), self._loops)
        except (SyntaxError, ValueError):
            return super().get_code(fullname)


class _TellingLoader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, tell: Callable[[ModuleType], None]) -> None:
        super().__init__(name, path)
        self._tell = tell

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        self._tell(module)
