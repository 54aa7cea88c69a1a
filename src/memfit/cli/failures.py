"""An exception -> one message that a person can act on; never a traceback.

Three kinds: what memfit raised on purpose (its own text), what the user's program raised (the type, the text and the
user's line), and a fault of memfit itself (called a bug, with the traceback saved in a file to attach to a report).
"""

from __future__ import annotations

import os
import site
import sysconfig
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from memfit.errors import BudgetError, CapacityError, MemfitError, MissingFrameworkError, SizeError

_EXTRAS = {
    "torch": "torch",
    "transformers": "examples",
    "torchao": "lowbit",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "pyarrow": "data",
    "PIL": "data",
    "jax": "jax",
    "tensorflow": "tensorflow",
    "keras": "tensorflow",
    "distributed": "dask",
}
_OWN = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + os.sep
_PLACES = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
_LIBRARIES = tuple(
    os.path.realpath(place) + os.sep for place in [*_PLACES, *site.getsitepackages(), site.getusersitepackages()]
)
_LONGEST = 1500
_EXHAUSTED = ("can't allocate memory", "out of memory", "bad_alloc", "not enough memory")


@dataclass(frozen=True)
class Failure:
    """``kind``: class name; ``fields``: the error's numbers; ``answer``: promised keys that an error still answers."""

    kind: str
    message: str
    fields: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)


def explain(error: BaseException, arguments: Sequence[str] = ()) -> Failure:
    """What to tell the user about ``error``. A fault of memfit itself also writes its traceback to a temporary file."""
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "memfit"
        return Failure("UsageError", f"{error.format_message().rstrip('.')}; see {path} --help")
    if isinstance(error, ModuleNotFoundError) and (root := (error.name or "").partition(".")[0]) in _EXTRAS:
        error = MissingFrameworkError(root, _EXTRAS[root])
    if isinstance(error, (MemfitError, SizeError)):
        return Failure(type(error).__name__, _one_line(str(error)), _fields(error), _answer(error))
    where = _user_line(error)
    if isinstance(error, MemoryError) or any(text in str(error).lower() for text in _EXHAUSTED):
        return Failure(
            "OutOfMemory",
            f"memory ran out while the program ran{where and f', at {where}'} ({_first_line(error)}); "
            "`memfit predict` needs no memory for tensors, `memfit fit --budget` makes the step smaller",
        )
    if isinstance(error, SystemExit):
        return Failure("SystemExit", f"the program ended itself with exit({error.code!r}) before its step was measured")
    what = f"{type(error).__name__}: {_first_line(error)}"
    if where and _innermost_is_users(error):
        return Failure(
            type(error).__name__, f"your program raised {what}, at {where}; run it without memfit to see its traceback"
        )
    path = _save_traceback(error, arguments)
    while_running = f" while it ran your code at {where}" if where else ""
    return Failure(
        type(error).__name__,
        f"{what}{while_running}; if your program runs without memfit this is a bug of memfit: "
        f"please report it with the traceback in {path}",
        {"traceback": path},
    )


def _fields(error: BaseException) -> dict[str, Any]:
    return {name: value for name, value in vars(error).items() if not name.startswith("_")}


def _answer(error: BaseException) -> dict[str, Any]:
    """A budget or capacity that cannot be kept still answers what could be, and what stands in the way."""
    if isinstance(error, BudgetError):
        return {"feasible": False, "budget": error.allowed, "smallest_feasible": error.needed}
    if isinstance(error, CapacityError):
        infeasible = list(error.infeasible)
        return {"fits": False, "capacity": error.capacity, "lower_bound": error.needed, "infeasible": infeasible}
    return {}


def _one_line(text: str) -> str:
    """The text without its line ends: what a user's exception says may be long."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:300]


def _user_line(error: BaseException) -> str:
    """``file:line`` of the innermost frame of the user's own code, or ''."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _owner(f.filename) == "user"]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _innermost_is_users(error: BaseException) -> bool:
    """Whether, libraries left aside, the user's code raised and not memfit's."""
    owners = [_owner(f.filename) for f in traceback.extract_tb(error.__traceback__)]
    own = [owner for owner in owners if owner != "library"]
    return bool(own) and own[-1] == "user"


def _owner(filename: str) -> str:
    if filename.startswith("<"):
        return "library"
    path = os.path.realpath(filename)
    if path.startswith(_OWN):
        return "memfit"
    return "library" if path.startswith(_LIBRARIES) else "user"


def _save_traceback(error: BaseException, arguments: Sequence[str]) -> str:
    with tempfile.NamedTemporaryFile(
        "w", prefix="memfit-traceback-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(f"memfit {' '.join(arguments)}\n\n")
        file.writelines(traceback.format_exception(error))
    return file.name
