"""Is a growing container on its way to a bound that its own code sets? Such a cache is no leak, only not yet full.

Told from the code, without running it: a container is bounded when it says so itself (``deque(maxlen=)``,
``lru_cache(maxsize=)``), or when the code that can reach it by name both takes entries out of it (``pop``, ``popitem``,
``popleft``, ``del``) and compares a size with something. A bound that the container has passed is none. The code looked
at: methods of the object that holds it, and of that object's class and bases; functions of the module that owns it.
Cost: a walk over the code objects of one class or module.
"""

from __future__ import annotations

import dis
import re
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

from memfit.observe.compiled_containers import CACHE_TYPE

_TAKERS = frozenset({"pop", "popitem", "popleft", "clear", "evict", "_evict"})
_LIMITS = re.compile(r"max|cap|limit|budget|bound|size|keep|window|length|count|len", re.IGNORECASE)


def own_bound(container: Any) -> int | None:
    """The bound that a container states itself, in entries."""
    if isinstance(container, deque):
        return container.maxlen
    if isinstance(container, CACHE_TYPE):
        bound = container.cache_info().maxsize
        return None if bound is None else int(bound)
    return None


def code_bounds(name: str, owner: Any, container: Any) -> str:
    """Why the container called ``name`` on ``owner`` (an object or a module) is bounded; empty where it is not."""
    for code in _codes_of(owner):
        if name in _names(code) and name in _evicts(code):
            return f"{code.co_qualname}() takes entries out of it once a bound is reached"
    if type(container).__module__ not in ("collections", "builtins") and isinstance(container, (dict, list, set)):
        for code in _codes_of(container):  # its own methods: what they take from is itself
            if _evicts(code):
                return f"{code.co_qualname}() takes entries out of it once a bound is reached"
    return ""


def _codes_of(owner: Any) -> Iterator[CodeType]:
    tables: list[dict[str, Any]] = []
    module = ""
    if isinstance(owner, FunctionType):
        owner = owner.__code__
    if isinstance(owner, CodeType):
        yield owner
        for part in owner.co_consts:
            if isinstance(part, CodeType):
                yield from _codes_of(part)
        return
    if isinstance(owner, ModuleType):
        tables, module = [vars(owner)], owner.__name__
        tables += [
            dict(vars(kind)) for kind in vars(owner).values() if isinstance(kind, type) and kind.__module__ == module
        ]
    else:
        kind = owner if isinstance(owner, type) else type(owner)
        tables = [dict(vars(base)) for base in kind.__mro__ if base.__module__ not in ("builtins", "collections")]
    for table in tables:
        for value in list(table.values()):
            function = getattr(value, "__func__", value)
            function = getattr(function, "fget", None) or getattr(function, "__wrapped__", None) or function
            if isinstance(function, FunctionType) and (not module or function.__module__ == module):
                yield function.__code__
            elif isinstance(value, FunctionType) and (not module or value.__module__ == module):
                yield value.__code__


@lru_cache(2048)
def _names(code: CodeType) -> frozenset[str]:
    inner = [_names(part) for part in code.co_consts if isinstance(part, CodeType)]
    return frozenset({*code.co_names, *code.co_varnames, *code.co_freevars}).union(*inner)


@lru_cache(2048)
def _evicts(code: CodeType) -> frozenset[str]:
    """Names out of which code takes something, where it also compares a size; of what it takes, every name on the way.

    Read backwards from what takes out: the names loaded since the last statement that stored something. A variable that
    was set from an attribute stands for it too.
    """
    found: set[str] = set()
    compares = False
    loaded: list[str] = []
    stands_for: dict[str, list[str]] = {}
    for step in dis.get_instructions(code):
        if step.opname.startswith("STORE_") or step.opname in ("POP_TOP", "RETURN_VALUE") or "JUMP" in step.opname:
            if step.opname in ("STORE_FAST", "STORE_DEREF", "STORE_NAME", "STORE_GLOBAL"):
                stands_for[step.argval] = list(loaded)
            loaded = []
        elif (step.opname in ("LOAD_METHOD", "LOAD_ATTR") and step.argval in _TAKERS) or step.opname == "DELETE_SUBSCR":
            found.update(loaded, *(stands_for.get(name, ()) for name in loaded))
        elif step.opname.startswith("LOAD_") and isinstance(step.argval, str) and step.opname != "LOAD_CONST":
            loaded.append(step.argval)
        if step.opname == "COMPARE_OP" and step.argval in (">", ">=", "<", "<="):
            compares = True
            loaded = []
    names = _names(code)
    return frozenset(found) if compares and ("len" in names or any(map(_LIMITS.search, names))) else frozenset()
