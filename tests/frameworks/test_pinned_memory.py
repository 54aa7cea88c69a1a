"""GPU-to-host offload: its logic on CPU tensors with recorded copies; the streams themselves where there is a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from memfit.frameworks.torch.pinned_memory import (
    BACK,
    OUT,
    CopiesAtOnce,
    PinnedMemory,
    slow_memory_of,
    table_speed,
    transfer_speed_of,
)
from memfit.frameworks.torch.slow_memory import SlowMemory
from memfit.machine.devices import devices, find_device

CPU = torch.device("cpu")


class Recorded(CopiesAtOnce):
    """Copies at once, and remembers what waited for what; events are numbered."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []

    def copy(self, way: str, target: torch.Tensor, source: torch.Tensor, after: tuple[Any, ...]) -> Any:
        super().copy(way, target, source, after)
        self.rows.append((way, after))
        return len(self.rows) - 1

    def wait(self, event: Any) -> None:
        self.rows.append(("wait", event))


def check_contract(memory: Any, device: torch.device) -> None:
    kept = {
        1: torch.randn(6, 4, device=device),
        2: torch.randn(4, 6, device=device).t(),
        3: torch.arange(10, device=device)[2:7],
        4: torch.tensor([True, False, True], device=device),
    }
    for _ in range(2):
        for slot, tensor in kept.items():
            memory.save(slot, tensor)
        memory.prefetch(2)
        for _ in range(2):  # a load may run again
            for slot, tensor in kept.items():
                found = memory.load(slot, tensor)
                assert torch.equal(found, tensor)
                assert (found.stride(), found.dtype, found.device) == (tensor.stride(), tensor.dtype, tensor.device)
                assert found.data_ptr() != tensor.data_ptr()
                found.zero_()  # what is loaded is the reader's own
        kept = {slot: tensor.clone().flip(0) if slot == 1 else tensor for slot, tensor in kept.items()}


@pytest.mark.parametrize("make", [SlowMemory, lambda: PinnedMemory(CPU), lambda: PinnedMemory(CPU, 1 << 20)])
def test_both_memories_keep_one_contract(make: Any) -> None:
    check_contract(make(), CPU)


def test_copies_wait_for_what_they_need() -> None:
    copies = Recorded()
    memory = PinnedMemory(CPU, spare=100, copies=copies)
    tensor = torch.randn(20)
    for _ in range(2):
        memory.save(7, tensor)
        memory.prefetch(7)
        memory.load(7, tensor)
    assert copies.rows == [(OUT, ()), (BACK, (0,)), ("wait", 1), (OUT, (1,)), (BACK, (3,)), ("wait", 4)]


def test_a_prefetch_takes_no_more_than_what_is_spare() -> None:
    copies = Recorded()
    memory = PinnedMemory(CPU, spare=100, copies=copies)
    for slot in (1, 2):
        memory.save(slot, torch.full((20,), float(slot)))  # 80 bytes each
    memory.prefetch(1)
    memory.prefetch(1)
    memory.prefetch(2)
    assert [row[0] for row in copies.rows] == [OUT, OUT, BACK]
    assert memory.load(2, torch.empty(20))[0] == 2
    assert memory.load(1, torch.empty(20))[0] == 1
    memory.prefetch(2)  # room again
    assert set(memory.coming) == {2}


def test_a_new_step_never_reads_what_an_older_one_prefetched() -> None:
    memory = PinnedMemory(CPU, spare=1000)
    memory.save(1, torch.zeros(5))
    memory.prefetch(1)  # and the step is given up
    memory.save(1, torch.ones(5))
    assert torch.equal(memory.load(1, torch.empty(5)), torch.ones(5))


def test_buffers_are_used_again_and_grow_with_their_tensors() -> None:
    memory = PinnedMemory(CPU)
    memory.save(1, torch.zeros(5))
    first = memory.buffers[1]
    memory.save(1, torch.ones(5))
    assert memory.buffers[1] is first
    memory.save(1, torch.ones(9))
    assert torch.equal(memory.load(1, torch.empty(9)), torch.ones(9))


def test_the_step_s_device_chooses_and_the_table_says_how_fast() -> None:
    assert isinstance(slow_memory_of(CPU), SlowMemory)
    assert transfer_speed_of(CPU) > 0
    assert table_speed("NVIDIA H100 80GB") == find_device("h100").transfer == 50_000_000_000
    assert table_speed("t4") < table_speed("a100") < table_speed("h200")
    assert table_speed("a device of nobody's table") > 0
    assert all(device.transfer > 0 for device in devices())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("spare", [0, 1 << 20])
def test_streams_keep_the_contract(spare: int) -> None:
    device = torch.device("cuda:0")
    memory = slow_memory_of(device, spare)
    assert isinstance(memory, PinnedMemory)
    check_contract(memory, device)
    assert all(buffer.is_pinned() for buffer in memory.buffers.values())
    large = torch.randn(1 << 22, device=device)
    expected = large.cpu()
    memory.save(9, large)
    del large
    torch.randn(1 << 22, device=device).zero_()  # may take the same bytes, after the copy
    assert torch.equal(memory.load(9, torch.empty(1 << 22)).cpu(), expected)
