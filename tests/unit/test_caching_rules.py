"""One short test for each rule of torch's CUDA caching allocator, on the compiled replay and on its twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from memfit.allocators.caching import CachingPolicy
from memfit.allocators.caching_settings import parse_settings
from memfit.allocators.policy import Replay
from memfit.errors import TraceError
from memfit.ir.requests import Action, Requests

KIB, MIB = 1 << 10, 1 << 20
BASE = 1 << 32


class Program:
    """Requests written one after the other; blocks are named by what they are called."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, int, int]] = []
        self.number: dict[str, int] = {}

    def get(self, name: str, nbytes: int, stream: int = 0, pool: int = 0) -> Program:
        self.number[name] = len(self.number)
        self.rows.append((Action.ALLOCATE, self.number[name], nbytes, stream, pool))
        return self

    def free(self, *names: str) -> Program:
        self.rows += [(Action.FREE, self.number[name], 0, 0, 0) for name in names]
        return self

    def request_free(self, name: str) -> Program:
        self.rows.append((Action.FREE_REQUESTED, self.number[name], 0, 0, 0))
        return self

    def empty_cache(self) -> Program:
        self.rows.append((Action.EMPTY_CACHE, 0, 0, 0, 0))
        return self

    def requests(self) -> Requests:
        action, block, nbytes, stream, pool = (np.array(column) for column in zip(*self.rows, strict=True))
        return Requests(action.astype(np.uint8), block.astype(np.int64), nbytes.astype(np.int64), stream.astype(np.int32),
                        pool.astype(np.int32), np.full(len(action), -1, np.int64))  # fmt: skip

    def run(self, conf: str = "", capacity: int | None = None) -> Replay:
        policy = CachingPolicy(parse_settings(conf))
        compiled = policy.replay(self.requests(), capacity, series=True)
        twin = policy.replay(self.requests(), capacity, series=True, twin=True)
        for name in ("failed", "peak_live", "peak_allocated", "peak_reserved", "driver_allocations", "driver_frees"):
            assert getattr(compiled, name) == getattr(twin, name), name
        assert compiled.series is not None
        assert twin.series is not None
        for name in ("live", "allocated", "reserved", "address"):
            assert np.array_equal(getattr(compiled.series, name), getattr(twin.series, name)), name
        return compiled


def addresses(found: Replay) -> list[int]:
    assert found.series is not None
    return [int(address) - BASE for address in found.series.address if address >= 0]


def series(found: Replay, name: str) -> Any:
    assert found.series is not None
    return getattr(found.series, name).tolist()


# Sizes.


def test_sizes_round_up_to_512_bytes() -> None:
    assert series(Program().get("a", 1).get("b", 513).run(), "allocated") == [512, 512 + 1024]


def test_roundup_splits_the_space_between_powers_of_two() -> None:
    assert Program().get("a", 1200 * KIB).run("roundup_power2_divisions:4").peak_allocated == 1280 * KIB
    assert Program().get("a", 1200 * KIB).run("roundup_power2_divisions:2").peak_allocated == 1536 * KIB
    assert Program().get("a", 1024 * KIB).run("roundup_power2_divisions:4").peak_allocated == 1024 * KIB


def test_roundup_leaves_sizes_up_to_512_times_the_divisions_alone() -> None:
    assert Program().get("a", 2048).run("roundup_power2_divisions:4").peak_allocated == 2048
    assert Program().get("a", 1537).run("roundup_power2_divisions:4").peak_allocated == 2048
    assert Program().get("a", 2049).run("roundup_power2_divisions:4").peak_allocated == 2560


def test_roundup_may_differ_by_interval() -> None:
    conf = "roundup_power2_divisions:[4:2,>:8]"
    assert Program().get("a", 1200 * KIB).run(conf).peak_allocated == 1536 * KIB
    assert Program().get("a", 33 * MIB).run(conf).peak_allocated == 36 * MIB


# Pools and segments.


@pytest.mark.parametrize(
    ("nbytes", "segment"), [(1, 2), (MIB, 2), (MIB + 1, 20), (10 * MIB - 512, 20), (10 * MIB, 10), (11 * MIB + 1, 12)]
)
def test_segments_by_size_of_the_request(nbytes: int, segment: int) -> None:
    assert Program().get("a", nbytes).run().peak_reserved == segment * MIB


def test_large_segments_can_be_larger() -> None:
    assert Program().get("a", 5 * MIB).run("large_segment_size_mb:64").peak_reserved == 64 * MIB
    assert Program().get("a", 10 * MIB).run("large_segment_size_mb:64").peak_reserved == 10 * MIB


def test_small_requests_do_not_use_large_segments() -> None:
    assert Program().get("a", 5 * MIB).get("b", 512).run().peak_reserved == 22 * MIB


def test_each_stream_has_segments_of_its_own() -> None:
    once = Program().get("a", 5 * MIB).free("a").get("b", 5 * MIB, stream=0).run()
    twice = Program().get("a", 5 * MIB).free("a").get("b", 5 * MIB, stream=1).run()
    assert (once.peak_reserved, twice.peak_reserved) == (20 * MIB, 40 * MIB)


def test_each_private_pool_has_segments_of_its_own() -> None:
    assert Program().get("a", 5 * MIB).free("a").get("b", 5 * MIB, pool=1).run().peak_reserved == 40 * MIB


# Search, split, join.


def test_best_fit_then_lowest_address() -> None:
    held = (
        Program().get("a", 40 * MIB).get("b", 12 * MIB).get("c", 30 * MIB).get("d", 12 * MIB).free("a", "c", "b", "d")
    )
    assert addresses(held.get("e", 11 * MIB).get("f", 11 * MIB).get("g", 25 * MIB).run())[4:] == [
        40 * MIB,
        82 * MIB,
        52 * MIB,
    ]


def test_small_blocks_split_from_512_bytes_on() -> None:
    assert addresses(Program().get("a", 512).get("b", MIB).get("c", 512).run()) == [
        0, 512, 512 + MIB
    ]  # fmt: skip


def test_large_blocks_split_only_when_more_than_1_mib_is_left() -> None:
    kept = Program().get("a", 20 * MIB).free("a").get("b", 19 * MIB).run()
    cut = Program().get("a", 20 * MIB).free("a").get("b", 19 * MIB - 512).run()
    assert (series(kept, "allocated")[-1], series(cut, "allocated")[-1]) == (20 * MIB, 19 * MIB - 512)


def test_freed_neighbours_join_at_once() -> None:
    held = Program().get("a", 5 * MIB).get("b", 5 * MIB).get("c", 5 * MIB).free("a", "c", "b").get("d", 20 * MIB - 512)
    assert held.run().peak_reserved == 20 * MIB


def test_blocks_of_different_segments_do_not_join() -> None:
    held = Program().get("a", 10 * MIB).get("b", 10 * MIB).free("a", "b").get("c", 20 * MIB)
    assert held.run().peak_reserved == 40 * MIB


# max_split_size_mb.


def test_blocks_from_the_split_limit_on_serve_no_smaller_request() -> None:
    held = Program().get("a", 64 * MIB).free("a").get("b", 30 * MIB)
    assert held.run().peak_reserved == 64 * MIB
    assert held.run("max_split_size_mb:64").peak_reserved == 94 * MIB


def test_requests_above_the_split_limit_get_whole_blocks() -> None:
    held = Program().get("a", 80 * MIB).free("a").get("b", 65 * MIB)
    assert series(held.run("max_split_size_mb:64"), "allocated")[-1] == 80 * MIB


def test_they_get_no_block_that_is_20_mib_larger() -> None:
    held = Program().get("a", 85 * MIB).free("a").get("b", 64 * MIB)
    assert held.run("max_split_size_mb:64").peak_reserved == (86 + 64) * MIB
    assert held.run("max_split_size_mb:64,max_non_split_rounding_mb:30").peak_reserved == 86 * MIB


# The way out of memory.


def test_out_of_memory_says_where() -> None:
    assert Program().get("a", 30 * MIB).get("b", 30 * MIB).run(capacity=50 * MIB).failed == 1


def test_wholly_free_segments_go_back_before_memory_runs_out() -> None:
    held = Program().get("a", 30 * MIB).free("a").get("b", 40 * MIB)
    found = held.run(capacity=40 * MIB)
    assert (found.failed, found.driver_allocations, found.driver_frees) == (None, 2, 1)


def test_a_split_segment_stays() -> None:
    held = Program().get("a", 5 * MIB).get("x", 5 * MIB).free("a").get("b", 30 * MIB)
    assert held.run(capacity=40 * MIB).failed == 3


def test_oversize_blocks_go_back_first_the_one_that_is_enough() -> None:
    held = Program().get("a", 70 * MIB).get("b", 100 * MIB).get("s", 20 * MIB).free("a", "b", "s").get("c", 31 * MIB)
    limited = held.run("max_split_size_mb:64", capacity=200 * MIB)
    plain = Program().get("a", 70 * MIB).get("b", 100 * MIB).get("s", 20 * MIB).free("a", "b", "s").get("c", 101 * MIB)
    assert (limited.failed, limited.driver_frees) == (None, 1)
    assert (plain.run(capacity=200 * MIB).driver_frees, series(limited, "reserved")[-1]) == (3, (190 - 70 + 32) * MIB)


def test_several_oversize_blocks_go_back_from_the_largest() -> None:
    held = Program().get("a", 70 * MIB).get("b", 100 * MIB).free("a", "b").get("c", 150 * MIB)
    found = held.run("max_split_size_mb:64", capacity=180 * MIB)
    assert (found.failed, found.driver_frees) == (None, 2)


def test_a_memory_fraction_is_a_capacity() -> None:
    held = Program().get("a", 60 * MIB)
    assert held.run("per_process_memory_fraction:0.5", capacity=100 * MIB).failed == 0
    assert held.run("per_process_memory_fraction:0.6", capacity=100 * MIB).failed is None


GARBAGE = "garbage_collection_threshold:0.5,per_process_memory_fraction:0.9"


def test_garbage_older_than_the_mean_goes_back_early() -> None:
    held = Program().get("a", 30 * MIB).free("a").get("b", 40 * MIB).free("b")
    for number in range(3):
        held.get(f"use {number}", 35 * MIB).free(f"use {number}")
    found = held.get("c", 50 * MIB).run(GARBAGE, capacity=120 * MIB)
    assert (found.failed, found.driver_frees, series(found, "reserved")[-1]) == (None, 1, 90 * MIB)


def test_no_garbage_is_collected_without_a_fraction_below_one() -> None:
    held = Program().get("a", 30 * MIB).free("a").get("b", 40 * MIB)
    for conf in (
        "garbage_collection_threshold:0.1",
        "garbage_collection_threshold:0.1,per_process_memory_fraction:1.0",
    ):
        assert held.run(conf, capacity=120 * MIB).driver_frees == 0


def test_garbage_below_the_threshold_stays() -> None:
    held = Program().get("a", 30 * MIB).free("a").get("b", 40 * MIB)
    assert held.run(GARBAGE, capacity=1000 * MIB).driver_frees == 0


def test_a_private_pool_keeps_its_segments() -> None:
    held = Program().get("a", 30 * MIB, pool=1).free("a").empty_cache().get("b", 40 * MIB)
    assert held.run(capacity=60 * MIB).failed == 3


def test_a_graph_under_capture_gives_no_cached_memory_back() -> None:
    held = Program().get("a", 30 * MIB).free("a").get("b", 40 * MIB, pool=1)
    assert held.run(capacity=60 * MIB).failed == 2


# Streams that use a block.


def test_a_block_that_another_stream_uses_is_not_reused_yet() -> None:
    held = Program().get("a", 12 * MIB).request_free("a").get("b", 12 * MIB).free("a").get("c", 12 * MIB)
    assert addresses(held.run()) == [0, 12 * MIB, 0]


def test_live_and_allocated_end_with_the_request_to_free() -> None:
    found = Program().get("a", 12 * MIB).request_free("a").free("a").run()
    assert (series(found, "live"), series(found, "allocated")) == ([12 * MIB, 0, 0], [12 * MIB, 0, 0])


def test_running_out_of_memory_waits_for_the_other_stream() -> None:
    held = Program().get("a", 30 * MIB).request_free("a").get("b", 40 * MIB).free("a").get("c", 30 * MIB)
    found = held.run(capacity=75 * MIB)
    assert (found.failed, found.driver_frees) == (None, 0)
    assert Program().get("a", 30 * MIB).request_free("a").get("b", 40 * MIB).run(capacity=60 * MIB).driver_frees == 1


def test_neighbours_of_a_waiting_block_do_not_join_it() -> None:
    held = Program().get("a", 5 * MIB).get("b", 5 * MIB).request_free("a").free("b").get("c", 16 * MIB)
    assert held.run().peak_reserved == 36 * MIB


def test_an_emptied_cache_gives_back_what_is_wholly_free() -> None:
    found = Program().get("a", 5 * MIB).get("b", 16 * MIB).free("b").empty_cache().run()
    assert series(found, "reserved") == [20 * MIB, 36 * MIB, 36 * MIB, 20 * MIB]


# expandable_segments.

GROWING = "expandable_segments:True"


def test_pages_are_mapped_on_demand() -> None:
    found = Program().get("a", 5 * MIB).get("b", 16 * MIB).get("s", 512).run(GROWING)
    assert (series(found, "reserved"), addresses(found)[:2]) == ([20 * MIB, 40 * MIB, 42 * MIB], [0, 5 * MIB])


def test_one_segment_grows_where_others_would_be_made() -> None:
    held = Program()
    for size in (21, 25, 31):
        held.get(f"{size}", size * MIB).free(f"{size}")
    assert (held.run().peak_reserved, held.run(GROWING).peak_reserved) == ((22 + 26 + 32) * MIB, 40 * MIB)


def test_every_block_of_an_expandable_segment_splits_from_512_bytes_on() -> None:
    assert Program().get("a", 20 * MIB).free("a").get("b", 20 * MIB - 512).run(GROWING).peak_allocated == 20 * MIB
    assert series(Program().get("a", 20 * MIB).free("a").get("b", 19 * MIB).run(GROWING), "allocated")[-1] == 19 * MIB


def test_the_best_fit_counts_what_a_block_could_grow_to() -> None:
    held = Program().get("a", 30 * MIB).get("x", 1537 * KIB).get("b", 29 * MIB).free("a", "b").get("c", 28 * MIB)
    assert addresses(held.run(GROWING))[-1] == 0


def test_empty_pages_go_back_and_holes_are_mapped_again() -> None:
    held = Program().get("a", 40 * MIB).get("x", 20 * MIB).free("a").empty_cache().get("b", 40 * MIB)
    found = held.run(GROWING, capacity=60 * MIB)
    assert (series(found, "reserved")[3:], addresses(found)[-1]) == ([20 * MIB, 60 * MIB], 0)
    assert (found.driver_allocations, found.driver_frees) == (3, 1)


def test_pages_in_part_in_use_stay() -> None:
    held = Program().get("a", 30 * MIB).get("x", 512 * KIB + MIB).free("a").empty_cache()
    assert series(held.run(GROWING), "reserved")[-1] == 20 * MIB


def test_refused_pages_are_unmapped_elsewhere() -> None:
    held = Program().get("a", 40 * MIB).free("a").get("b", 30 * MIB, stream=1)
    assert held.run(GROWING, capacity=60 * MIB).failed is None
    assert held.run(GROWING, capacity=40 * MIB).failed is None
    assert held.run(GROWING, capacity=39 * MIB).failed == 0


# What no program can ask.


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (Program().get("a", 0), "must be 1 byte or more"),
        (Program().get("a", -5), "must be 1 byte or more"),
        (Program().get("a", 1 << 50), "above 2\\^48"),
        (Program().get("a", 1).free("a", "a"), "freed more than once"),
        (Program().get("a", 1).free("a").request_free("a"), "before that was requested"),
    ],
)
def test_impossible_requests_are_refused(program: Program, why: str) -> None:
    with pytest.raises(TraceError, match=why):
        program.run()


def test_a_terabyte_is_only_a_number() -> None:
    assert Program().get("a", 10**12).run().peak_reserved == -(-(10**12) // (2 * MIB)) * 2 * MIB
    assert Program().get("a", 10**12).run(capacity=80 << 30).failed == 0
