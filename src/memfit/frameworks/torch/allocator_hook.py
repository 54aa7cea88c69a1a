"""The CPU allocator's own events: how many bytes live, their peak, and a recording of every block.

``install`` puts a counting allocator around c10's CPU allocator (see ``hook/allocator.cc``); everything that torch
allocates on the CPU from then on is counted, at the bytes requested, whoever allocates it and on whatever thread.
``start_recording`` .. ``stop_recording`` keep the events, with the operation, the module and on request the Python
stack behind each. Without a compiler ``is_available`` is False and ``memfit.frameworks.torch.profiler_events`` records
through torch's own profiler instead, at its price.

>>> install()                                            # doctest: +SKIP
>>> reset_peak(); model(inputs); peak_bytes()            # doctest: +SKIP
"""

from __future__ import annotations

import atexit
import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import CodeType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from memfit.frameworks.torch.hook_library import HookError, load
from memfit.ir.recording import PythonFrame, Recording

_OUTCOMES = {
    2: "torch did not accept another CPU allocator",
    3: "another library has put its own CPU allocator over an earlier install",
}
_NO_STEP = -(1 << 63)  # of a mark that is no phase
_recording = False
_set_mark: Callable[[bytes], object] = bytes  # the library's, while a recording runs
_installed = False


@cache
def _library() -> ctypes.PyDLL:
    library = load()
    atexit.register(_at_exit)
    return library


def _at_exit() -> None:
    _library().memfit_stop()


def is_available() -> bool:
    """Whether the hook can be used here; builds it on the first call (about 7 s of CPU, once per torch version)."""
    try:
        _library()
    except HookError:
        return False
    return True


def install() -> None:
    """Count the CPU blocks allocated from now on; nothing happens where it is installed already.

    Raises:
        HookError: the hook cannot be built, loaded or put in place.
    """
    global _installed
    outcome = _library().memfit_install()
    if outcome in _OUTCOMES:
        raise HookError(_OUTCOMES[outcome])
    _installed = True


def uninstall() -> None:
    """Put the allocator found by ``install`` back. Blocks that are alive stay valid, and are freed by who made them."""
    global _installed
    _library().memfit_uninstall()
    _installed = False


@contextmanager
def installed() -> Iterator[None]:
    """``install`` .. ``uninstall`` around a block of code; left installed where it was installed before."""
    before = _installed
    install()
    try:
        yield
    finally:
        if not before:
            uninstall()


def live_bytes() -> int:
    """Bytes of the blocks allocated since ``install`` that are still alive."""
    return int(_library().memfit_live())


def peak_bytes() -> int:
    """Largest ``live_bytes`` since ``install`` or ``reset_peak``."""
    return int(_library().memfit_peak())


def reset_peak() -> None:
    """Let the peak start anew from what lives now."""
    _library().memfit_reset_peak()


def block_of(address: int) -> int:
    """The number of the living block at ``address`` (a storage's ``data_ptr``), -1 where it is none of the hook's."""
    return int(_library().memfit_block_of(address))


def recorder_bytes() -> int:
    """Bytes that the hook itself holds for its table and its recording."""
    return int(_library().memfit_recorder_bytes())


def resident() -> dict[str, int]:
    """This process now, in bytes: ``live`` blocks of the hook, ``resident`` size, of this ``shared`` (backed by files),
    and malloc's own account: ``arena`` (``used`` and ``free``) and ``mapped``; zeros where there is no such account.
    """
    return _resident("resident")


def fullest() -> dict[str, int]:
    """The same at the fullest moment seen since ``start_samples``."""
    return _resident("fullest")


def start_samples() -> None:
    """Look at the process whenever the live bytes reach new ground, by steps of 2 %; a look takes some 20 us."""
    _library().memfit_sample(1)


def sample_now() -> None:
    """Look at the process now as well."""
    _library().memfit_sample_now()


def stop_samples() -> None:
    """End ``start_samples``; ``fullest`` stays."""
    _library().memfit_sample(0)


def _resident(which: str) -> dict[str, int]:
    values = np.zeros(7, np.int64)
    getattr(_library(), f"memfit_{which}")(_pointer(values))
    return dict(zip(("live", "resident", "shared", "arena", "mapped", "used", "free"), values.tolist(), strict=True))


def start_recording(*, stacks: bool = False, operations: bool = True) -> None:
    """Keep every event from now on; blocks alive already come first, as one event each.

    Args:
        stacks: keep the Python stack of every operation that allocates.
        operations: keep which operation and module allocates.
    """
    global _recording, _set_mark
    library = _library()
    _set_mark = library.memfit_mark
    library.memfit_set_module_call(id(getattr(torch.nn.Module.__call__, "__code__", None)))
    library.memfit_start(int(operations), int(stacks))
    _recording = True


def is_recording() -> bool:
    """Whether a recording runs."""
    return _recording


def mark(text: str) -> None:
    """Put a mark into the recording; without one running nothing happens. About 1 us."""
    if _recording:
        _set_mark(text.encode())


def watch_operations(on: bool) -> None:
    """While a recording runs: keep which operation allocates from now on, or no longer (events alone cost less)."""
    if _recording:
        _library().memfit_watch(int(on))


StepCalls = tuple[
    Callable[[], None], Callable[[], tuple[int, int, int, float]], Callable[[int, str], None]
]  # (begin_step, end_step, mark_phase)


def step_calls() -> StepCalls:
    """``begin_step()``, ``end_step()`` and ``mark_phase(step, phase)``: what a recording calls in every step.

    ``end_step`` gives (peak bytes since the step began, live bytes now, digest of the event sizes since then, seconds of
    CPU). Equal digests mean the same sizes allocated and freed in the same order. Functions of the library itself (0.1
    us a call) where it was built with Python's headers, else through ctypes (1 us).
    """
    library = _library()
    if library.memfit_has_python():
        calls: StepCalls = library.memfit_step_calls()
        return calls
    return ctypes_step_calls()


def ctypes_step_calls() -> StepCalls:
    """``step_calls`` for a library without Python in it."""
    library, turned, began = _library(), (ctypes.c_int64 * 3)(), 0.0
    address = ctypes.addressof(turned)

    def begin_step() -> None:
        nonlocal began
        library.memfit_turn_step(address)
        began = time.process_time()

    def end_step() -> tuple[int, int, int, float]:
        seconds = time.process_time() - began
        library.memfit_turn_step(address)
        return turned[0], turned[1], turned[2], seconds

    def mark_phase(step: int, phase: str) -> None:
        library.memfit_mark_phase(step, phase.encode())

    return begin_step, end_step, mark_phase


def stop_recording() -> Recording:
    """End the recording and hand it over; the native buffers are freed. Cost: O(events)."""
    global _recording
    library = _library()
    library.memfit_stop()
    _recording = False
    counts = np.zeros(4, np.int64)
    library.memfit_counts(_pointer(counts))
    events, operations, marks, characters = (int(count) for count in counts)
    event: list[Any] = [np.empty(events, kind) for kind in (np.int64, np.int64, np.int64, np.int32, np.int32)]
    library.memfit_copy_events(*map(_pointer, event))
    op: list[Any] = [np.empty(operations, kind) for kind in (*[np.int64] * 5, *[np.int32] * 4)]
    library.memfit_copy_operations(*map(_pointer, op))
    mark_columns: list[Any] = [np.empty(marks, kind) for kind in (*[np.int64] * 4, np.int32)]
    library.memfit_copy_marks(*map(_pointer, mark_columns))
    buffer = np.empty(max(characters, 1), np.uint8)
    library.memfit_copy_texts(_pointer(buffer))
    texts = buffer[:characters].tobytes().decode(errors="replace").split("\n")[:-1]
    stacks = _stacks(library)
    library.memfit_clear()
    library.memfit_clear_stacks()
    block, delta, nanoseconds, operation, stack = event
    sequence, thread, forward_thread, operation_nanoseconds, module, name, parent, scope, operation_stack = op
    return Recording(
        block=block, delta=delta, operation=operation, nanoseconds=nanoseconds, stack=stack,
        name=tuple(texts[index] for index in name), parent=parent, scope=scope, sequence=sequence, thread=thread,
        forward_thread=forward_thread, module=module, operation_stack=operation_stack,
        operation_nanoseconds=operation_nanoseconds,
        mark_text=tuple(
            texts[text] if step == _NO_STEP else f"{step} {texts[text]}"
            for step, text in zip(mark_columns[3].tolist(), mark_columns[4].tolist(), strict=True)
        ),
        mark_event=mark_columns[0], mark_operation=mark_columns[1], mark_nanoseconds=mark_columns[2], stacks=stacks,
    )  # fmt: skip


def _pointer(column: npt.NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(column.ctypes.data)


def _stacks(library: ctypes.PyDLL) -> tuple[tuple[PythonFrame, ...], ...]:
    """The Python stacks, symbolised. The hook holds the code objects until ``memfit_clear_stacks``."""
    frames = np.zeros(1, np.int64)
    count = int(library.memfit_stack_count(_pointer(frames)))
    lengths, codes, instructions = (
        np.empty(count, np.int64),
        np.empty(int(frames[0]), np.int64),
        np.empty(int(frames[0]), np.int64),
    )
    library.memfit_copy_stacks(_pointer(lengths), _pointer(codes), _pointer(instructions))
    known: dict[tuple[int, int], PythonFrame] = {}
    result: list[tuple[PythonFrame, ...]] = []
    start = 0
    for length in lengths.tolist():
        stack: list[PythonFrame] = []
        for key in zip(
            codes[start : start + length].tolist(), instructions[start : start + length].tolist(), strict=True
        ):
            if key not in known:
                known[key] = _frame(*key)
            stack.append(known[key])
        result.append(tuple(stack))
        start += length
    return tuple(result)


def _frame(address: int, instruction: int) -> PythonFrame:
    code: CodeType = ctypes.cast(address, ctypes.py_object).value
    line = code.co_firstlineno
    for begin, end, number in code.co_lines():
        if begin <= instruction < end and number is not None:
            line = number
            break
    return PythonFrame(code.co_filename, line, code.co_qualname)
