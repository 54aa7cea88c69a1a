"""A chain of references in words: `trainer.history[17].grad_fn`, as the user would write it.

Labels are found after the walk, for the few chains that are shown: a dict that is an object's attributes becomes
``.name``, a closure's cell ``closure history``, a cache ``cache of fn()``. Indices and keys differ from object to
object; ``pattern`` writes them as ``[*]``, and repeated steps once, so that chains of one kind are equal.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from types import CellType, CodeType, FrameType, FunctionType, MethodType, TracebackType
from typing import Any

from memfit.observe.compiled_containers import CACHE_TYPE
from memfit.observe.retention import Chain
from memfit.runtime.living import frame_variables

_PLAIN = (
    (re.compile(r"\._modules\['(\w+)'\]"), r".\1"),
    (re.compile(r"\._(?:parameters|buffers)\['(\w+)'\]"), r".\1"),
    (re.compile(r"\.__dict__\['(\w+)'\]"), r".\1"),
    (re.compile(r"\['([A-Za-z_]\w*)'\](?=\()"), r".\1"),
)
_INDEX = re.compile(r"\[[^\[\]]*\]")
_REPEATED = re.compile(r"((?:\.\w+|\[\*\]| \([^()]*\)){1,3}?)\1{2,}")
_LONGEST_KEY = 40


def holder_words(chain: Chain, upto: int | None = None) -> str:
    """The chain's text from its root down to object ``upto`` (the last one when left out)."""
    text = chain.root
    where = ""
    if " in " in text:
        text, _, where = text.partition(" in ")
    last = len(chain.objects) - 1 if upto is None else upto
    steps = labels(chain)[:last]
    text += "".join(steps)
    for pattern, plain in _PLAIN:
        text = pattern.sub(plain, text)
    return f"{text} in {where}" if where else text


def pattern(chain: Chain, upto: int | None = None) -> str:
    """The chain's text with every index and key as ``[*]`` and runs of the same step as one."""
    text = _INDEX.sub("[*]", holder_words(chain, upto))
    return _REPEATED.sub(r"\1…", text)


def labels(chain: Chain) -> list[str]:
    """What leads from each object of a chain to the next; empty where two objects are one to a person."""
    found: list[str] = []
    for place, (above, below) in enumerate(zip(chain.objects, chain.objects[1:], strict=False)):
        given = chain.labels[place]
        if given:
            found.append(given)
            continue
        owner = chain.objects[place - 1] if place else None
        if isinstance(owner, FunctionType) and isinstance(above, tuple) and above is owner.__closure__:
            names = [name for name, cell in zip(owner.__code__.co_freevars, above, strict=False) if cell is below]
            found.append(f" (closure variable {names[0]})" if names else "")
            continue
        if isinstance(above, dict) and owner is not None and (isinstance(owner, type) or _table_of(owner) is above):
            found[-1] = ""
            key = _key_of(above, below)
            found.append(f".{key}" if isinstance(key, str) else _index(key))
            continue
        found.append(_label(above, below))
    return found


def _label(above: Any, below: Any) -> str:
    if isinstance(above, dict):
        key = _key_of(above, below)
        return _index(key) if key is not _NONE else " (key)"
    if isinstance(above, (list, tuple, deque)):
        for number, item in enumerate(above):
            if item is below:
                return f"[{number}]"
        return "[*]"
    if isinstance(above, (set, frozenset)):
        return "[*]"
    if isinstance(above, CACHE_TYPE):
        name = getattr(getattr(above, "__wrapped__", None), "__qualname__", "")
        return " (function)" if below is getattr(above, "__wrapped__", None) else f" (lru_cache of {name}())"
    if isinstance(above, FunctionType):
        return _function_label(above, below)
    if isinstance(above, MethodType):
        return ".__self__" if below is above.__self__ else ".__func__"
    if isinstance(above, CellType):
        return ""
    if isinstance(above, FrameType):
        name = next((key for key, value in frame_variables(above).items() if value is below), "?")
        return f" > {name} in {above.f_code.co_qualname}()"
    if isinstance(above, TracebackType):
        return ".tb_next" if below is above.tb_next else ".tb_frame"
    if isinstance(above, BaseException):
        for name in ("__traceback__", "__context__", "__cause__", "args"):
            if getattr(above, name, None) is below:
                return f".{name}"
    return _attribute_label(above, below)


def _function_label(above: FunctionType, below: Any) -> str:
    for name, cell in zip(above.__code__.co_freevars, above.__closure__ or (), strict=False):
        if cell is below:
            return f" (closure variable {name})"
    if below is above.__closure__:
        return ""
    if below is above.__defaults__ or below is above.__kwdefaults__:
        return " (default argument)"
    if below is above.__dict__:
        return ""
    return "." + next((name for name, value in vars(above).items() if value is below), "?")


def _attribute_label(above: Any, below: Any) -> str:
    table = _table_of(above)
    if table is below:
        return ""
    if table is not None:
        key = _key_of(table, below)
        if key is not _NONE:
            return f".{key}"
    for kind in type(above).__mro__ if not isinstance(above, type) else ():
        for name in _slots(kind):
            try:
                if object.__getattribute__(above, name) is below:
                    return f".{name}"
            except Exception:
                continue
    if isinstance(above, type):
        key = next((name for name, value in vars(above).items() if value is below), None)
        return f".{key}" if key else " (class)"
    return f" ({type(below).__name__})"


def _slots(kind: type) -> Sequence[str]:
    slots = kind.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots) if isinstance(slots, (tuple, list)) else ()


def _table_of(owner: Any) -> Any:
    if isinstance(owner, (type, CodeType)):
        return None
    try:
        return object.__getattribute__(owner, "__dict__")
    except Exception:
        return None


_NONE = object()


def _key_of(table: dict[Any, Any], below: Any) -> Any:
    for key, value in list(table.items()):
        if value is below:
            return key
    return _NONE


def _index(key: Any) -> str:
    if key is _NONE:
        return " (key)"
    try:
        text = repr(key) if isinstance(key, (str, int, bytes, tuple, float, bool)) else type(key).__name__
    except Exception:
        text = type(key).__name__
    text = text.replace("[", "(").replace("]", ")")
    return f"[{text if len(text) <= _LONGEST_KEY else text[: _LONGEST_KEY - 1] + '…'}]"
