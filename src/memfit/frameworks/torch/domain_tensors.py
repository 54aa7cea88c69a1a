"""Torch's CPU tensors charged to domains: an entrance for ``memfit.runtime.domains``.

Storages are charged when torch's CPU allocator is asked, and credited when the block is freed, by whatever thread.
Backward passes charge the domain of who called them, autograd's own threads included. See ``hook/domain``.
Where the allocator cannot be built (no compiler), entering a domain says so once: torch's tensors are not counted then.
"""

from __future__ import annotations

import ctypes
import warnings
from functools import cache
from typing import Any

from memfit.frameworks.torch.hook_library import HookError, load_part
from memfit.runtime.domains import Leave, error_of, native_calls


@cache
def _library() -> Any:
    library = load_part("domain")
    place = ctypes.c_void_p
    library.memfit_domain_calls.argtypes = [place, place, place, place, ctypes.py_object]
    library.memfit_domain_calls.restype = None
    library.memfit_domain_enter.argtypes = [place]
    library.memfit_domain_enter.restype = ctypes.c_int
    library.memfit_domain_leave.restype = ctypes.c_int
    library.memfit_domain_calls(*native_calls(), error_of)
    return library


@cache
def _warn(why: str) -> None:
    warnings.warn(f"memfit: torch's tensors are not charged to domains: {why}", stacklevel=5)


def entrance(account: int) -> Leave:
    """This thread's tensors are charged to the account until the result is called."""
    try:
        library = _library()
    except HookError as error:
        _warn(str(error).splitlines()[0])
        return lambda: None
    if not library.memfit_domain_enter(account):
        raise HookError("torch did not accept another CPU allocator")

    def leave() -> None:
        library.memfit_domain_leave()

    return leave
