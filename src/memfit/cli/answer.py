"""What a command hands back to `main`, and the standard output kept free for it.

A command computes nothing and prints nothing: it returns an ``Answer`` with the JSON object, how to draw it, and
whether the answer is no. `main` alone prints and chooses the exit code.
"""

from __future__ import annotations

import contextlib
import io
import math
import operator
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console


@dataclass(frozen=True)
class Answer:
    """``data``: the object of --json. ``draw``: the terminal summary. ``no``: the answer is no and --check asked.

    ``unkept``: a budget was asked for and is not kept.
    """

    data: dict[str, Any]
    draw: Callable[[Console], None]
    no: bool = False
    unkept: bool = False


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: integers stay integers, numbers that are none become None, the rest text."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    try:
        return operator.index(value)
    except TypeError:
        pass
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else None


@contextlib.contextmanager
def reserved_output(reserve: bool) -> Iterator[TextIO]:
    """The stream for the answer. Reserved: all other output to standard output, of native code and of child processes
    too, goes to standard error until the block ends."""
    if not reserve:
        yield sys.stdout
        return
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
        kept = os.dup(descriptor)
    except (OSError, io.UnsupportedOperation):  # standard output is no file, as under a test runner
        stream = sys.stdout
        with contextlib.redirect_stdout(sys.stderr):
            yield stream
        return
    try:
        os.dup2(sys.stderr.fileno(), descriptor)
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as stream:
            yield stream
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os.dup2(kept, descriptor)
        os.close(kept)
