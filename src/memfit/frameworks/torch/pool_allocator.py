"""torch's CPU tensors from the pool: a small allocator, compiled once against the installed torch, set in its place.

Without a C++ compiler malloc itself is told to keep what is freed (``mallopt``): large tensors are no longer mapped and
unmapped on each use, but there is no plan and more memory stays resident. Which of the two it is, ``install`` says.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

from memfit.errors import PoolError
from memfit.frameworks.torch.hook_library import HookError, NoCompilerError, load_library
from memfit.runtime.pool import functions as pool_functions

_SOURCES = Path(__file__).parent / "pool_hook"
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of <malloc.h>
_DEFAULT_TRIM, _DEFAULT_MAPS = 128 << 10, 65536
_LARGEST = 2**31 - 1
_WHY = {
    2: ("torch does not accept another CPU allocator", "use memfit.pool.install(tensors=False) for NumPy alone"),
    3: (
        "another CPU allocator is in place of torch's own (a memfit measurement that runs, or another library)",
        "install the pool first",
    ),
}


@cache
def _library() -> ctypes.CDLL:
    library = load_library("pool_allocator", _SOURCES, python=False)
    library.memfit_pool_install.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    return library


def install() -> str:
    """Serve CPU tensors from the pool from now on. About 5 s of CPU the first time, for the compiler.

    Returns:
        ``pool``, or ``mallopt`` where there is no compiler.

    Raises:
        PoolError: this torch cannot be given another allocator; nothing is changed then.
    """
    try:
        library = _library()
    except NoCompilerError:
        if not _set_malloc(0, _LARGEST):
            raise PoolError(
                "there is no C++ compiler, and this system's malloc has no mallopt",
                "install a compiler, or use memfit.pool.install(tensors=False) for NumPy alone",
            ) from None
        return "mallopt"
    except HookError as error:
        raise PoolError(
            f"this torch ({torch.__version__}) is not supported: its allocator cannot be built or loaded: {error.why}"
            + (f": {error.detail.splitlines()[-1]}" if error.detail else ""),
            "use a released torch, or memfit.pool.install(tensors=False) for NumPy alone",
        ) from error
    allocate, release, _ = pool_functions()
    outcome = int(library.memfit_pool_install(allocate, release))
    if outcome in _WHY:
        raise PoolError(*_WHY[outcome])
    return "pool"


def uninstall(how: str) -> None:
    """Undo ``install``, which returned ``how``. Tensors that are alive stay valid."""
    if how == "pool":
        _library().memfit_pool_uninstall()
    elif how == "mallopt":
        _set_malloc(_DEFAULT_MAPS, _DEFAULT_TRIM)


def _set_malloc(maps: int, trim: int) -> bool:
    """Tell malloc how many blocks it may map, and how many free bytes at its top it keeps."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_MMAP_MAX, maps) == 1 and mallopt(_TRIM_THRESHOLD, trim) == 1
