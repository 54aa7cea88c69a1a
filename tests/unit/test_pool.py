"""``memfit.pool`` with NumPy: who serves, what is counted, what is said when it is used wrongly."""

import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import memfit
from memfit import PoolError, PoolWarning, _core
from memfit.runtime.pool import serves


@pytest.fixture
def pool():
    memfit.pool.install(tensors=False)
    yield memfit.pool
    if memfit.pool.installed:
        memfit.pool.uninstall()


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def test_arrays_come_from_the_pool_and_go_back(pool) -> None:
    before = pool.statistics()
    small, large = np.ones(10), np.ones(1 << 20)
    assert serves(small)
    assert serves(large)
    assert _core.pool_holds(large.ctypes.data)
    assert not _core.pool_holds(small.ctypes.data)
    now = pool.statistics()
    assert now.live == before.live + large.nbytes
    assert now.live_blocks == before.live_blocks + 1
    del large
    assert pool.statistics().live == before.live


def test_a_freed_block_is_used_again(pool) -> None:
    first = np.empty(1 << 20)
    address = first.ctypes.data
    del first
    assert np.empty(1 << 20).ctypes.data == address


def test_zeros_are_zero_after_use_small_large_and_lazy(pool) -> None:
    for count in (100, 3000, 1 << 18, 5 << 20):
        dirty = np.full(count, 7.0)
        del dirty
        assert not np.zeros(count).any()


def test_resizing_keeps_the_contents(pool) -> None:
    for count, wanted in ((10, 20), (1000, 100_000), (100_000, 150_000), (100_000, 30_000), (1 << 20, 50)):
        array = np.arange(count, dtype=np.int64)
        array.resize(wanted, refcheck=False)
        kept = min(count, wanted)
        assert (array[:kept] == np.arange(kept)).all()
        assert not array[kept:].any()


def test_threads_started_by_python_are_served_too(pool) -> None:
    seen = []
    thread = threading.Thread(target=lambda: seen.append(serves(np.ones(1 << 16))))
    thread.start()
    thread.join()
    assert seen == [True]


def test_arrays_that_outlive_it_stay_valid_and_are_freed_right() -> None:
    memfit.pool.install(tensors=False)
    before = memfit.pool.statistics().live_blocks
    kept = np.full(1 << 20, 3.0)
    with pytest.warns(PoolWarning, match=r"uninstalled while \d+ blocks .* stay valid"):
        memfit.pool.uninstall()
    other = np.ones(1 << 20)
    assert not serves(other)
    assert (kept == 3.0).all()
    del kept
    assert memfit.pool.statistics().live_blocks == before


def test_installed_twice_is_one_clear_message(pool) -> None:
    with pytest.raises(PoolError, match=r"installed already.*uninstall it first"):
        pool.install(tensors=False)
    assert pool.installed


def test_nested_blocks_leave_it_as_it_was(pool) -> None:
    with memfit.pool(tensors=False):
        assert memfit.pool.installed
    assert memfit.pool.installed
    memfit.pool.uninstall()
    with memfit.pool(tensors=False):
        assert serves(np.ones(100))
    assert not memfit.pool.installed
    assert not serves(np.ones(100))
    memfit.pool.uninstall()  # nothing happens


def test_a_negative_patience_is_refused() -> None:
    with pytest.raises(PoolError, match="give_back_after"):
        memfit.pool.install(give_back_after=-1)
    assert not memfit.pool.installed


def test_trim_gives_free_memory_back(pool) -> None:
    array = np.ones(8 << 20)
    del array
    assert memfit.pool.statistics().touched >= 64 << 20
    assert memfit.pool.trim() >= 60 << 20
    assert memfit.pool.statistics().touched < 32 << 20


def test_pages_unused_for_long_are_given_back() -> None:
    with memfit.pool(tensors=False, give_back_after=1):
        memfit.pool.trim()
        array = np.ones(8 << 20)
        del array
        until = time.monotonic() + 60
        while memfit.pool.statistics().touched > 16 << 20 and time.monotonic() < until:
            time.sleep(0.2)
            np.ones(1 << 14)
        assert memfit.pool.statistics().touched <= 16 << 20


def test_steps_that_repeat_are_planned_and_one_that_differs_is_served_at_once(pool) -> None:
    def step(extra: bool = False) -> None:
        kept = []
        for layer in range(20):
            scratch = np.full(10_000 + 1000 * layer, float(layer))
            kept.append(scratch * 2)
            if extra and layer == 7:
                more = np.full(77_777, -1.0)
                assert (more == -1).all()
            assert (scratch == layer).all()
        for layer in range(19, -1, -1):
            assert (kept.pop() == 2 * layer).all()

    pool.trim()
    before = pool.statistics()
    for _ in range(3):
        step()
        pool.step()
    planned = pool.statistics()
    assert planned.plans == before.plans + 1
    assert planned.plan_events >= 80
    step()
    pool.step()
    followed = pool.statistics()
    assert followed.planned - planned.planned == 40
    step(extra=True)
    left = pool.statistics()
    assert left.departures == followed.departures + 1
    assert left.plan_events == 0
    assert left.live == before.live


def test_without_planning_there_is_no_plan() -> None:
    with memfit.pool(tensors=False, planning=False):
        before = memfit.pool.statistics()
        for _ in range(10):
            arrays = [np.ones(20_000) for _ in range(10)]
            del arrays
            memfit.pool.step()
        assert memfit.pool.statistics().plans == before.plans


def test_a_forked_child_allocates_and_frees_while_threads_do() -> None:
    done = run("""
        import os, threading, time
        import numpy as np
        import memfit
        memfit.pool.install(tensors=False)
        kept, stop = np.full(1 << 18, 5.0), False
        def work():
            while not stop:
                [np.ones(size) for size in (100, 10_000, 100_000)]
        threads = [threading.Thread(target=work) for _ in range(3)]
        [thread.start() for thread in threads]
        for _ in range(15):
            child = os.fork()
            if child == 0:
                good = all((np.full(size, 2.0) == 2).all() for size in (10, 50_000, 300_000) for _ in range(20))
                os._exit(0 if good and (kept == 5).all() else 3)
            until = time.monotonic() + 60
            while True:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    break
                assert time.monotonic() < until, "the child hangs"
                time.sleep(0.005)
            assert status == 0, status
        stop = True
        [thread.join() for thread in threads]
        print("fine")
    """)
    assert done.stdout == "fine\n", done.stderr


def test_importing_memfit_and_its_pool_brings_no_framework() -> None:
    done = run("""
        import sys, memfit
        memfit.pool.install()
        print("torch" in sys.modules, memfit.pool.statistics().tensors)
    """)
    assert done.stdout.startswith("False "), done.stderr


def test_under_a_limit_of_addresses_it_takes_less() -> None:
    done = run("""
        import resource
        import numpy as np
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        import memfit
        memfit.pool.install(tensors=False)
        arrays = [np.ones(8 << 20) for _ in range(16)]
        assert all((array == 1).all() for array in arrays)
        try:
            np.ones(2 << 30)
        except MemoryError:
            print("refused")
    """)
    assert done.stdout == "refused\n", done.stderr
