"""Domains over NumPy's arrays: budgets, threads, guard pages; and the words of the errors."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest

import memfit
from memfit.errors import DomainBudgetError, MemfitError
from memfit.runtime.segments import FAULT_EXIT

MIB = 1 << 20


def test_two_tenants_each_within_its_budget() -> None:
    with memfit.domain("one", budget="2MiB") as one:
        kept = np.zeros(MIB, np.uint8)
    with memfit.domain("two", budget="8MiB") as two, pytest.raises(DomainBudgetError) as caught:  # noqa: PT012
        mine = np.ones(3 * MIB, np.uint8)
        with memfit.domain("one"):
            np.zeros(2 * MIB, np.uint8)
    assert (caught.value.name, caught.value.needed, caught.value.used, caught.value.budget) == (
        "one", 2 * MIB, MIB, 2 * MIB,
    )  # fmt: skip
    with memfit.domain("two"):
        more = np.ones(4 * MIB, np.uint8)  # the other goes on
    assert two.usage.used == 7 * MIB
    assert one.usage.refused == 1
    del kept, mine, more
    gc.collect()
    assert one.usage.used == two.usage.used == 0
    assert 7 * MIB <= two.usage.high_water < 7 * MIB + 1000  # NumPy's own small change comes and goes


def test_the_error_says_what_and_how_much() -> None:
    error = DomainBudgetError("a", 3 * MIB, 6 * MIB, 8 * MIB)
    assert str(error) == (
        "domain 'a' needs 3.00 MiB (3145728 bytes) more and has 2.00 MiB (2097152) left of its budget of 8.00 MiB "
        "(8388608); free something of it, or raise its budget"
    )
    assert isinstance(error, MemoryError)


def test_each_thread_charges_its_own_and_a_free_elsewhere_is_credited_to_the_maker() -> None:
    held: dict[str, np.ndarray] = {}
    ready = threading.Barrier(2)

    def tenant(name: str, nbytes: int) -> None:
        with memfit.domain(name):
            ready.wait()
            held[name] = np.zeros(nbytes, np.uint8)
            ready.wait()

    threads = [threading.Thread(target=tenant, args=(f"thread {i}", (i + 1) * MIB)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [memfit.domain(f"thread {i}").usage.used for i in range(2)] == [MIB, 2 * MIB]
    with memfit.domain("thread 1"):
        del held["thread 0"]
    assert memfit.domain("thread 0").usage.used == 0
    assert memfit.domain("thread 1").usage.used == 2 * MIB


def test_two_threads_at_the_limit_never_both_get_the_last_bytes() -> None:
    budget, each = 64 * MIB, MIB
    got: list[np.ndarray] = []
    refused: list[DomainBudgetError] = []

    def greedy() -> None:
        try:
            with memfit.domain("contended", budget=budget) as tenant:
                for _ in range(70):
                    got.append(np.empty(each, np.uint8))
                    assert tenant.usage.used <= budget
        except DomainBudgetError as error:
            refused.append(error)

    threads = [threading.Thread(target=greedy) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 64
    assert len(refused) == 4
    assert memfit.domain("contended").usage.high_water == budget


def test_resized_and_zeroed_arrays_are_accounted_to_the_byte() -> None:
    with memfit.domain("resized") as tenant:
        array = np.arange(1000, dtype=np.float64)
        array.resize(5000, refcheck=False)
        assert tenant.usage.used == 40000
        assert array[:1000].sum() == 499500.0
        array.resize(10, refcheck=False)
        assert tenant.usage.used == 80
    del array
    assert tenant.usage.used == 0
    assert tenant.usage.blocks == 0


def test_nested_domains_charge_the_innermost_and_reuse_is_the_same_domain() -> None:
    with memfit.domain("outer") as outer:
        with memfit.domain("inner") as inner:
            a = np.zeros(100, np.uint8)
        b = np.zeros(10, np.uint8)
        with memfit.domain("outer") as again:
            c = np.zeros(1, np.uint8)
    assert again is outer
    assert (outer.usage.used, inner.usage.used) == (11, 100)
    del a, b, c


def test_segments_are_charged_to_the_domain_they_are_made_in() -> None:
    with memfit.domain("segmented", budget="1MiB") as tenant:
        scratch = memfit.Segment("scratch", "600KiB")
        view = scratch.array(10)
        with pytest.raises(DomainBudgetError):
            memfit.Segment("more", "600KiB")
    assert tenant.usage.used == 600 << 10
    del scratch
    assert tenant.usage.used == 600 << 10  # an array looks at it still
    del view
    gc.collect()
    assert tenant.usage.used == 0


def test_wrong_budgets_and_names() -> None:
    with memfit.domain("full") as tenant:
        kept = np.zeros(1000, np.uint8)
    with pytest.raises(MemfitError, match=r"uses 1000 B \(1000 bytes\) already"):
        memfit.domain("full", budget=10)
    with pytest.raises(memfit.SizeError):
        memfit.domain("full", budget="much")
    with pytest.raises(MemfitError, match="1 to 55 bytes"):
        memfit.domain("")
    assert kept.nbytes == tenant.usage.used
    assert any(usage.name == "full" for usage in memfit.domains())


def test_other_memory_errors_stay_what_they_are() -> None:
    with pytest.raises(MemoryError) as caught, memfit.domain("honest"):
        raise MemoryError("not ours")
    assert not isinstance(caught.value, DomainBudgetError)


def test_guarded_blocks_name_the_domain_that_was_overrun() -> None:
    code = """
import numpy as np, memfit
with memfit.domain("tenant seven", guard=True) as tenant:
    a = np.ones(64, np.uint8)
assert tenant.usage.used == 64 and a.sum() == 64
b = a.copy(); del b
np.lib.stride_tricks.as_strided(a, (65,), (1,))[64] = 1
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == FAULT_EXIT, done.stderr
    assert "segment 'tenant seven': 0 bytes past its limit of 64 bytes" in done.stderr


def test_importing_and_entering_a_domain_imports_no_framework() -> None:
    code = "import sys, memfit\nwith memfit.domain('a'): pass\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
