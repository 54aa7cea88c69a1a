"""How long objects are that compiled code made and that show no length: a pickler's memo, a parser's tree, a context, a stream.

Of such an object the number of what it leads to is its length: its referents, and theirs where those are of such types
too (``itertools.tee`` keeps its items in linked blocks, a ``contextvars.Context`` in a tree of nodes). In a look
those count to which no other one refers. Of streams in memory the length is what was written. Cost: 0.3 us an object
of such types, at most ``_MOST_VISITED`` of them.
"""

from __future__ import annotations

import functools
import gc
import io
import weakref
from collections import deque
from types import (
    AsyncGeneratorType,
    BuiltinFunctionType,
    CellType,
    ClassMethodDescriptorType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    TracebackType,
    WrapperDescriptorType,
)  # fmt: skip
from typing import Any

import numpy as np

from memfit.observe.own_objects import is_watching
from memfit.runtime.living import Survey

CACHE_TYPE = type(functools.lru_cache(lambda: None))
_NO_CONTAINERS = frozenset({
    BuiltinFunctionType, CellType, FrameType, FunctionType, GeneratorType, CoroutineType, AsyncGeneratorType, MethodType,
    ModuleType, TracebackType, GetSetDescriptorType, MemberDescriptorType, MethodDescriptorType, ClassMethodDescriptorType,
    WrapperDescriptorType, MethodWrapperType, MappingProxyType, weakref.ref, property, staticmethod, classmethod, slice,
    super, type, CACHE_TYPE, memoryview, *weakref.ProxyTypes,
})  # fmt: skip
STREAMS = (io.StringIO, io.BytesIO)
_TRACKED = 1 << 14
_MOST_OF_A_KIND = 600
_MOST_VISITED = 60_000
_MOST_OF_ONE = 30_000
_compiled_kinds: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()


def is_compiled_container(kind: type) -> bool:
    """Whether objects of a type are made by compiled code, and may hold any number of others without showing a length."""
    known = _compiled_kinds.get(kind)
    if known is None:
        known = _compiled_kinds[kind] = _holds_unseen(kind)
    return known


def _holds_unseen(kind: type) -> bool:
    if kind in _NO_CONTAINERS or issubclass(kind, (list, dict, set, frozenset, tuple, deque, BaseException, type)):
        return False
    if not kind.__flags__ & _TRACKED or kind.__dictoffset__ or is_watching(kind):
        return False
    return not any("__slots__" in base.__dict__ for base in kind.__mro__)


def measure(seen: Survey) -> None:
    """Put the lengths of compiled containers and streams among the lengths; of a kind with very many none is one."""
    few = np.flatnonzero(seen.numbers <= _MOST_OF_A_KIND)
    wanted = [
        number
        for number, at in zip(seen.kinds[few].tolist(), seen.first[few].tolist(), strict=True)
        for kind in (type(seen.objects[at]),)
        if issubclass(kind, STREAMS) or is_compiled_container(kind)
    ]
    places = np.flatnonzero(np.isin(seen.kind, wanted)).tolist()
    inside: set[int] = set()
    for place in places:
        thing = seen.objects[place]
        if issubclass(type(thing), STREAMS):
            seen.length[place] = stream_length(thing)
        else:
            seen.length[place] = 0
            inside.update(map(id, gc.get_referents(thing)))
    visited: set[int] = set()
    heads = [place for place in places if seen.length[place] == 0 and int(seen.address[place]) not in inside]
    left = _MOST_VISITED
    for place in heads:
        if left > 0:
            found = contents(seen.objects[place])
            visited.update(map(id, found))
            left -= len(found)
            seen.length[place] = len(found)
    for place in places:
        if seen.length[place] == 0 and int(seen.address[place]) not in visited:  # one of a cycle
            seen.length[place] = len(gc.get_referents(seen.objects[place]))


def contents(thing: Any) -> list[Any]:
    """What a compiled container leads to, through others of such types."""
    visited = {id(thing)}
    found: list[Any] = []
    queue = deque([thing])
    while queue and len(found) < _MOST_OF_ONE:
        for child in gc.get_referents(queue.popleft()):
            if is_compiled_container(type(child)):
                if id(child) in visited:
                    continue
                visited.add(id(child))
                queue.append(child)
            found.append(child)
    return found


def stream_length(stream: Any) -> int:
    """Characters or bytes that a stream in memory holds; -1 once it is closed. Nothing is moved or copied."""
    try:
        if issubclass(type(stream), io.BytesIO):
            return io.BytesIO.__sizeof__(stream) - io.BytesIO.__basicsize__
        return io.StringIO.tell(stream)
    except ValueError:
        return -1


def length_of(thing: Any) -> int:
    """The length of a container as a look measures it, -1 where it has none. Never runs a length of the user's own."""
    try:
        for kind in (list, dict, set, frozenset, deque):
            if issubclass(type(thing), kind):
                return int(kind.__len__(thing))  # type: ignore[arg-type]
        if type(thing) is CACHE_TYPE:
            return int(thing.cache_info().currsize)
        if issubclass(type(thing), STREAMS):
            return stream_length(thing)
        return len(contents(thing)) if is_compiled_container(type(thing)) else -1
    except Exception:
        return -1
