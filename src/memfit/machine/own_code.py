"""Whose code is a file: the user's, a library's, or memfit's own."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from functools import lru_cache

_OWN = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + os.sep
_PLACES = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
_LIBRARIES = tuple(
    os.path.realpath(place) + os.sep
    for place in {*_PLACES, *site.getsitepackages(), site.getusersitepackages(), *_PLACES}
    if place
)
_OWN_PACKAGES = frozenset({"memfit", "memray", "tracemalloc"})


@lru_cache(4096)
def is_users_file(path: str) -> bool:
    """Whether a file of code is neither the standard library's, an installed package's, nor memfit's."""
    if path.startswith(("<", _OWN, *_LIBRARIES)) or os.sep + "site-packages" + os.sep in path:
        return False
    real = os.path.realpath(path)
    if real.startswith(_OWN) or os.sep + "site-packages" + os.sep in real or os.sep + "dist-packages" + os.sep in real:
        return False
    return not real.startswith(_LIBRARIES)


@lru_cache(16384)
def is_own_module(name: str, path: str | None) -> bool:
    """Whether a module is part of the watching: nothing that it holds is the user's."""
    if name.partition(".")[0] in _OWN_PACKAGES:
        return True
    return isinstance(path, str) and path.startswith(_OWN)


def place(path: str, line: int) -> str:
    """``file:line`` as people write it: relative where the file lies under the folder they are in."""
    if path.startswith("<") or not path:
        return f"{path}:{line}"
    try:
        relative = os.path.relpath(path)
    except ValueError:
        return f"{path}:{line}"
    for folder in sys.path:
        if folder and "site-packages" in folder and path.startswith(folder + os.sep):
            return f"{path[len(folder) + 1 :]}:{line}"
    return f"{path if relative.startswith('..') else relative}:{line}"
