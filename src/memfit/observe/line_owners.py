"""Whose method a line calls: `database.execute()` of a `sqlite3.Connection` for a line with `database.execute(...)`.

Native memory has no holder that Python sees; the object made by compiled code whose method took it is the name that a
person knows. The line's calls are read from the source, and their owners looked up among the variables of the frame that is
about to run it, by instance attributes only, so that no code of the program's runs. No reference is kept, only text.
Cost: the source is parsed once a file; 50 us a line.
"""

from __future__ import annotations

import ast
import linecache
from functools import lru_cache
from types import BuiltinFunctionType, FrameType, FunctionType, ModuleType
from typing import Any

from memfit.machine.own_code import is_users_file
from memfit.runtime.living import frame_variables

_VALUES = (str, bytes, bytearray, int, float, complex, bool, list, dict, set, frozenset, tuple, type(None))
_LARGEST = 2_000_000
_NOTHING = object()


def owner_in_line(frame: FrameType) -> tuple[str, str]:
    """The type of an object made by compiled code, and the call of it, in the line that a frame is about to run; of a module's
    function the call twice; empty where neither is.
    """
    paths = _calls(frame.f_code.co_filename).get(frame.f_lineno, ())
    if not paths:
        return "", ""
    names = {**frame.f_globals, **frame_variables(frame)}
    functions = []
    for path in paths:
        owner = _looked_up(names, path[:-1])
        call = ".".join(path) + "()"
        if len(path) > 1 and owner is not _NOTHING and _is_compiled(owner):
            kind = type(owner)
            return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."), call
        function = _looked_up(names, path)
        of_module = isinstance(owner, ModuleType) and not isinstance(function, type)
        if of_module or (isinstance(function, BuiltinFunctionType) and function.__module__ not in (None, "builtins")):
            functions.append((call, call))
    return functions[0] if functions else ("", "")


def _looked_up(names: dict[str, Any], path: tuple[str, ...]) -> Any:
    value = names.get(path[0], _NOTHING) if path else _NOTHING
    for attribute in path[1:]:
        if value is _NOTHING:
            return value
        try:
            value = object.__getattribute__(value, "__dict__").get(attribute, _NOTHING)
        except Exception:
            return _NOTHING
    return value


def _is_compiled(value: Any) -> bool:
    kind = type(value)
    if kind is ModuleType or issubclass(kind, (type, FunctionType)) or kind in _VALUES:
        return False
    module = kind.__module__
    if not isinstance(module, str) or module == "__main__":
        return False
    code = next((part.__code__ for part in vars(kind).values() if isinstance(part, FunctionType)), None)
    return code is None or not is_users_file(code.co_filename)


@lru_cache(64)
def _calls(path: str) -> dict[int, tuple[tuple[str, ...], ...]]:
    """Of each line the dotted names that it calls, those of enclosing statements' other lines left out."""
    text = "".join(linecache.getlines(path))
    if not text or len(text) > _LARGEST:
        return {}
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return {}
    found: dict[int, list[tuple[str, ...]]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            dotted = _dotted(node.func)
            if dotted:
                for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                    found.setdefault(line, []).append(dotted)
    return {line: tuple(paths) for line, paths in found.items()}


def _dotted(node: ast.expr) -> tuple[str, ...]:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return (node.id, *reversed(parts)) if isinstance(node, ast.Name) else ()
