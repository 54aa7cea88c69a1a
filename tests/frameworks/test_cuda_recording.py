"""The CUDA half of profile on a made-up allocator history: no device is needed."""

from __future__ import annotations

from memfit.frameworks.torch.cuda_recorder import recording_of, resolved
from memfit.frameworks.torch.run_recorder import step_figures
from memfit.ir.recording import KnownStorage
from memfit.ir.trace import Category

FRAMES = [{"filename": "model.py", "line": 3, "name": "forward"}]


def entry(action: str, address: int, size: int, when: int) -> dict[str, object]:
    return {"action": action, "addr": address, "size": size, "time_us": when, "frames": FRAMES, "stream": 0}


HISTORY = [
    entry("free_completed", 900, 512, 0),  # older than the history
    entry("segment_alloc", 0, 2 << 20, 1),
    entry("alloc", 100, 512, 2),
    entry("alloc", 200, 1024, 11),
    entry("free_requested", 200, 1024, 14),
    entry("free_completed", 200, 1024, 15),
    entry("alloc", 200, 2048, 21),
]
MARKS = [("-1 build", 1), ("0 forward", 10), ("0 between", 16), ("0 end", 17), ("1 forward", 20), ("1 end", 30)]


def test_a_history_becomes_events_and_marks() -> None:
    recording, _ = recording_of(HISTORY, MARKS)
    assert recording.block.tolist() == [0, 1, 1, 2]
    assert recording.delta.tolist() == [512, 1024, -1024, 2048]
    assert recording.mark_event.tolist() == [0, 1, 3, 3, 3, 4]
    assert recording.peak == 2560
    assert str(recording.stacks[recording.operation_stack[0]][0]) == "model.py:3"
    assert step_figures(recording, 2) == ([1536, 2560], [512, 2560])


def test_an_address_means_the_block_that_lived_there_then() -> None:
    _, lives = recording_of(HISTORY, MARKS)
    tickets = [(100, 12), (200, 12), (200, 18), (200, 25), (777, 25)]
    rows = [KnownStorage(ticket, 1, Category.INPUTS, str(ticket)) for ticket in range(5)]
    assert [(row.block, row.label) for row in resolved(rows, tickets, lives)] == [(0, "0"), (1, "1"), (2, "3")]


def test_no_events_at_all() -> None:
    recording, lives = recording_of([], MARKS)
    assert len(recording) == 0
    assert lives == {}
    assert step_figures(recording, 2) == ([0, 0], [0, 0])
