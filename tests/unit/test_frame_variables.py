"""The variables of a frame: those that Python shows, read without leaving or changing anything."""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from memfit.runtime.living import frame_variables, frame_variables_slowly

WAYS = [frame_variables, frame_variables_slowly]


class Thing:
    pass


def frames() -> dict[str, FrameType]:
    """Frames of every kind, each of a function or a body that is not finished."""
    found: dict[str, FrameType] = {}

    def plain(first: int, *rest: int, key: str = "k", **others: int) -> None:
        late = first
        found["plain"] = sys._getframe()
        del late
        never: int
        if first < 0:
            never = 1
            print(never)

    def closing(held: list[int]) -> Callable[[], list[int]]:
        def inside() -> list[int]:
            found["free"] = sys._getframe()
            return held

        inside()
        found["cells"] = sys._getframe()
        return inside

    def generating() -> Any:
        value = "before"
        yield sys._getframe()
        value = "after"
        yield value

    class Body:
        attribute = 3
        found["class"] = sys._getframe()

    plain(1, 2, 3, other=4)
    closing([1, 2])
    generator = generating()
    found["generator"] = next(generator)
    found["comprehension"] = [sys._getframe() for _ in range(1)][0]  # noqa: RUF015 - a frame of that kind
    found["lambda"] = (lambda a, b=2: sys._getframe())(1)
    return found | {"kept": generator}


@pytest.mark.parametrize("kind", ["plain", "free", "cells", "generator", "class", "comprehension", "lambda"])
def test_both_ways_see_the_same(kind: str) -> None:
    frame = frames()[kind]
    first, second = (way(frame) for way in WAYS)
    assert first == second
    assert list(first) == list(second)
    assert first or kind == "free"


def test_a_module_shows_its_names() -> None:
    frame = sys._getframe()
    while frame.f_code.co_name != "<module>":
        assert frame.f_back is not None
        frame = frame.f_back
    assert frame_variables(frame) == frame.f_globals


def test_nothing_stays_beside_the_frame() -> None:
    thing = Thing()
    gone = weakref.ref(thing)
    assert frame_variables(sys._getframe())["thing"] is thing
    del thing
    assert gone() is None


def test_the_table_that_the_program_took_is_left_alone() -> None:
    def taken(first: int, second: int) -> dict[str, Any]:
        table = locals()
        table.pop("first")
        seen = frame_variables(sys._getframe())
        assert seen["first"] == 1
        return table

    assert taken(1, 2) == {"second": 2}


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises((TypeError, AttributeError)):
        frame_variables("frame")  # type: ignore[arg-type]


RACE = """
import sys, threading
from memfit.runtime.living import frame_variables

def trace(frame, event, argument):
    for _ in range(20):
        pass
    return trace

def work(given, count):
    for number in range(count):
        local = number
        given.append(local)

failed = []
threading.excepthook = lambda what: failed.append(what.exc_value)
threading.settrace(trace)
thread = threading.Thread(target=work, args=([], 20_000))
thread.start()
threading.settrace(None)
sys.setswitchinterval(1e-5)
while thread.is_alive():
    frame = sys._current_frames().get(thread.ident)
    while frame is not None:
        frame_variables(frame)
        frame = frame.f_back
print(failed)
"""


def test_a_thread_that_is_traced_keeps_its_variables() -> None:
    done = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[]\n", done.stderr
