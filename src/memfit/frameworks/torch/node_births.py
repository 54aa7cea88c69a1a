"""Where the nodes of a graph were made: while its anomaly mode is on, torch notes the stack at each node it makes.

Values are not checked (``check_nan`` off), so that results stay as they are. Nothing is noted where the program has the mode
on itself, or has compiled something: what it compiled would be compiled anew. Cost: about 0.1 ms a node, for the few steps in
which births are asked for.
"""

from __future__ import annotations

import linecache
import re
from typing import Any

import torch

_FRAME = re.compile(r'File "(.+?)", line (\d+)')
_noting = False
_known_sources: set[str] = set()


def note(on: bool, compiled: bool) -> None:
    """Note from now on, or no more. ``compiled``: the program has compiled something."""
    global _noting, _known_sources
    if on and not compiled and not torch.is_anomaly_enabled():
        torch.set_anomaly_enabled(True, False)
        _noting, _known_sources = True, set(linecache.cache)
    elif not on and _noting:
        torch.set_anomaly_enabled(False, True)
        _noting = False
        for path in set(linecache.cache) - _known_sources:  # a stack is noted with its source; no file is kept for that
            entry: tuple[Any, ...] = linecache.cache[path]
            if len(entry) == 4 and entry[1] is not None:
                linecache.cache.pop(path, None)
        _known_sources = set()


def birth(node: Any) -> list[tuple[str, int]]:
    """The frames that made a node, innermost first; empty where they were not noted."""
    try:
        lines = node.metadata.get("traceback_", ())
    except (AttributeError, RuntimeError):
        return []
    frames = [(found[1], int(found[2])) for line in lines for found in [_FRAME.search(line)] if found]
    return frames[::-1]
