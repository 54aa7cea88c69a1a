"""The compiled half of the allocator hook: built once per torch, Python and source, then loaded.

The C++ under ``hook/`` needs the headers of the installed torch, so it is compiled on the user's machine, in a few
seconds, into a cache directory: ``$MEMFIT_CACHE``, else ``$XDG_CACHE_HOME/memfit``, else ``~/.cache/memfit``. The name
of the file holds a digest of everything it depends on; it is built under a temporary name and renamed, so that two
processes may build it at once. ``$CXX`` names the compiler, else ``c++``, ``g++`` or ``clang++`` is taken.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

import torch

from memfit.errors import MemfitError

_SOURCES = Path(__file__).parent / "hook"
_TIMEOUT = 600


class HookError(MemfitError):
    """An allocator library cannot be built or loaded. ``why``, ``detail``: the end of the compiler's output."""

    def __init__(self, why: str, detail: str = "") -> None:
        super().__init__(
            f"cannot build the allocator hook: {why}"
            + (f"\n{detail}" if detail else "")
            + "\ninstall a C++20 compiler (or name one in CXX); without it memory events come from torch's own profiler"
        )
        self.why, self.detail = why, detail


class NoCompilerError(HookError):
    """There is no C++ compiler."""


def cache_directory() -> Path:
    """Where the library is kept; made if need be, a temporary directory where the place cannot be written."""
    named = os.environ.get("MEMFIT_CACHE")
    base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memfit"
    try:
        base.mkdir(parents=True, exist_ok=True)
        if os.access(base, os.W_OK):
            return base
    except OSError:
        pass
    fallback = Path(tempfile.gettempdir()) / f"memfit-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    fallback.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and fallback.stat().st_uid != os.getuid():  # never load what somebody else put there
        raise HookError(f"no directory to keep it in: {base} cannot be written and {fallback} belongs to another user")
    return fallback


def find_compiler() -> list[str]:
    """The command of the C++ compiler.

    Raises:
        NoCompilerError: there is none.
    """
    named = os.environ.get("CXX")
    if named:
        command = shlex.split(named)
        if not command or shutil.which(command[0]) is None:
            raise NoCompilerError(f"the compiler named in CXX ({named}) is not there")
        return command
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name) is not None:
            return [name]
    raise NoCompilerError("there is no C++ compiler (looked for c++, g++ and clang++)")


def library_path(extra: tuple[str, ...] = (), part: str = "", folder: Path | None = None) -> Path:
    """The file that holds the hook, or a ``part`` of its own, for this torch, this Python and these sources."""
    digest = hashlib.sha256(part.encode())
    for source in sorted(
        {*_SOURCES.glob("*.h"), *(folder or _SOURCES / part).glob("*.cc"), *(folder or _SOURCES).glob("*.h")}
    ):
        digest.update(source.name.encode() + source.read_bytes())
    parts = (
        torch.__version__,
        torch.__file__,
        sys.version,
        platform.machine(),
        str(torch._C._GLIBCXX_USE_CXX11_ABI),
        *extra,
    )
    digest.update("\0".join(parts).encode())
    name = f"{part or 'allocator'}_hook"
    return cache_directory() / f"{name}-torch{torch.__version__.partition('+')[0]}-{digest.hexdigest()[:16]}.so"


def build(extra: tuple[str, ...] = (), part: str = "", folder: Path | None = None) -> Path:
    """Compile the hook unless it is there already; ``extra``: further compiler flags. About 9 s of CPU the first time.

    ``part``: a folder of sources that is a library of its own; ``folder``: where they lie, if not there.

    Raises:
        HookError: no compiler, or it fails.
    """
    path = library_path(extra, part, folder)
    if path.exists():
        return path
    root = Path(torch.__file__).parent
    python = Path(sysconfig.get_paths()["include"])
    handle, partial = tempfile.mkstemp(prefix=path.stem, suffix=".part", dir=path.parent)
    os.close(handle)
    command = [
        *find_compiler(), "-O2", "-std=c++20", "-fPIC", "-shared",
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}",
        f"-I{root / 'include'}", f"-I{python}", *extra,
        *(str(source) for source in sorted((folder or _SOURCES / part).glob("*.cc"))),
        "-o", partial, f"-L{root / 'lib'}", "-lc10", "-ltorch_cpu",
        *(["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
        if done.returncode != 0:
            raise HookError(
                f"{command[0]} failed with status {done.returncode}", "\n".join(done.stderr.splitlines()[-8:])
            )
        os.replace(partial, path)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HookError(f"{command[0]} could not be run to its end ({error})") from error
    finally:
        Path(partial).unlink(missing_ok=True)
    return path


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Set the argument and result types of the library's functions."""
    word = ctypes.c_int64
    results = {
        "install": ctypes.c_int, "uninstall": ctypes.c_int, "live": word, "peak": word, "block_of": word,
        "recorder_bytes": word, "has_python": ctypes.c_int, "stack_count": word,
    }  # fmt: skip
    arguments = {
        "block_of": [ctypes.c_void_p], "start": [ctypes.c_int, ctypes.c_int], "mark": [ctypes.c_char_p],
        "set_module_call": [ctypes.c_void_p], "watch": [ctypes.c_int], "sample": [ctypes.c_int],
        "turn_step": [ctypes.c_void_p], "mark_phase": [word, ctypes.c_char_p],
    }  # fmt: skip
    plain = ("reset_peak", "stop", "clear", "clear_stacks", "sample_now")
    for name in (*results, *arguments, *plain):
        function = getattr(library, f"memfit_{name}")
        function.restype = results.get(name)
        if name in arguments:
            function.argtypes = arguments[name]
    if library.memfit_has_python():
        library.memfit_step_calls.restype = ctypes.py_object
    return library


def load_library(name: str, sources: Path, *, python: bool) -> ctypes.CDLL:
    """The library ``name`` of the C++ under ``sources``, built if need be, loaded for good; ``python``: called with the
    interpreter lock held.

    Raises:
        HookError: it cannot be built or loaded.
    """
    path = build((), name, sources)
    try:
        return ctypes.PyDLL(str(path)) if python else ctypes.CDLL(str(path))
    except OSError as error:
        path.unlink(missing_ok=True)
        raise HookError(f"the built library does not load ({error})") from error


@cache
def load_part(part: str) -> ctypes.PyDLL:
    """The library of a part, built if need be; as ``load``. Its functions are declared by who calls them.

    Raises:
        HookError: it cannot be built or loaded.
    """
    path = build((), part)
    try:
        return ctypes.PyDLL(str(path))
    except OSError as error:
        path.unlink(missing_ok=True)
        raise HookError(f"the built library does not load ({error})") from error


@cache
def load(extra: tuple[str, ...] = ()) -> ctypes.PyDLL:
    """The loaded library, built if need be. Loaded once and never unloaded: living blocks are freed through it.

    Raises:
        HookError: it cannot be built or loaded.
    """
    path = build(extra)
    try:
        return declare(ctypes.PyDLL(str(path)))  # type: ignore[return-value]
    except (OSError, AttributeError) as error:
        path.unlink(missing_ok=True)  # built anew next time
        raise HookError(f"the built library does not load ({error})") from error
