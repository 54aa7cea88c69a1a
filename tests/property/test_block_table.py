"""The native block table against its twin, step by step: allocation, sharing, eviction, freeing."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.runtime.block_table import BlockTable, BlockTableTwin

LANE = 6
WIDTH = 2  # tokens of a block


def play(steps: list[tuple[int, int, int]], capacity: int) -> int:
    """Runs rows that come, share, grow, are published and go, in both tables; how many steps did something."""
    native, twin = BlockTable(capacity, LANE), BlockTableTwin(capacity, LANE)
    rows: list[tuple[int, list[int], list[int]]] = []  # lane, blocks, tokens
    done = 0
    for kind, first, second in steps:
        if kind == 0 or not rows:
            lane = native.open_lane()
            assert lane == twin.open_lane()
            tokens = [first % 3, second % 3, (first // 3) % 3, second // 3 % 2, *([1] * (2 * LANE))][: 2 * LANE]
            found = native.match(np.array(tokens, np.int32), WIDTH).tolist()
            assert found == twin.match(tokens, WIDTH)
            native.retain(np.array(found, np.int64))
            twin.retain(found)
            rows.append((lane, found, tokens))
        elif kind == 1:
            lane, blocks, _ = rows[first % len(rows)]
            count = min(1 + second % 3, LANE - len(blocks))
            if count > 0:
                got, want = native.allocate(lane, len(blocks), count), twin.allocate(lane, len(blocks), count)
                assert (got is None) == (want is None)
                if got is not None:
                    assert got.tolist() == want
                    blocks.extend(range(lane * LANE + len(blocks), lane * LANE + len(blocks) + count))
                    done += 1
        elif kind == 2:
            _, blocks, tokens = rows[first % len(rows)]
            chain = native.match(np.array(tokens, np.int32), WIDTH).tolist()
            for index in range(len(chain), len(blocks)):
                part = tokens[index * WIDTH : (index + 1) * WIDTH]
                try:
                    got = native.publish(blocks[index], chain[-1] if chain else -1, np.array(part, np.int32))
                except ValueError:  # published before, behind a beginning that is gone
                    break
                assert got == twin.publish(blocks[index], chain[-1] if chain else -1, part)
                chain.append(got)
                done += 1
        else:
            lane, blocks, _ = rows.pop(first % len(rows))
            assert native.release(np.array(blocks, np.int64)).tolist() == twin.release(blocks)
            native.close_lane(lane)
            twin.close_lane(lane)
        assert (native.held, native.unused) == (twin.held, twin.unused)
        assert native.held + native.unused <= capacity
        for _, blocks, _ in rows:
            assert [native.references(block) for block in blocks] == [twin.references(block) for block in blocks]
    smaller = max(native.held, capacity // 2)
    evicted = native.resize(smaller)
    assert evicted is not None
    assert evicted.tolist() == twin.resize(smaller)
    assert native.drop_unused().tolist() == twin.drop_unused()
    return done


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8), st.integers(0, 8)), max_size=60), st.integers(2, 14))
def test_the_native_table_decides_as_its_twin(steps: list[tuple[int, int, int]], capacity: int) -> None:
    play(steps, capacity)


def test_a_long_walk_evicts_shares_and_agrees() -> None:
    rng = np.random.default_rng(3)
    steps = [(int(k), int(a), int(b)) for k, a, b in zip(*rng.integers(0, [[4], [9], [9]], (3, 3000)), strict=True)]
    assert play(steps, 9) > 100  # not a walk of refusals


def hit_rate(requests: np.ndarray, capacity: int) -> float:
    """Requests of one published block each, used and let go."""
    table = BlockTable(capacity, 1)
    hits = 0
    for item in requests.tolist():
        tokens = np.array([item], np.int32)
        found = table.match(tokens, 1)
        if len(found):
            hits += 1
            table.retain(found)
            table.release(found)
            continue
        lane = table.open_lane()
        assert table.allocate(lane, 0, 1) is not None
        assert table.publish(lane, -1, tokens) == lane
        table.release(np.array([lane], np.int64))
        table.close_lane(lane)
    return hits / len(requests)


def least_recently_used(requests: np.ndarray, capacity: int) -> float:
    kept: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for item in requests.tolist():
        if item in kept:
            hits += 1
            kept.move_to_end(item)
            continue
        if len(kept) >= capacity:
            kept.popitem(last=False)
        kept[item] = None
    return hits / len(requests)


def test_eviction_keeps_what_is_wanted_on_zipf_requests_and_through_a_scan() -> None:
    rng = np.random.default_rng(0)
    weights = np.arange(1, 2001) ** -0.9
    requests = rng.choice(2000, 150_000, p=weights / weights.sum())
    assert hit_rate(requests, 1000) >= max(0.85, least_recently_used(requests, 1000) + 0.01)
    hot = np.tile(np.arange(40), 5)
    scanned = np.concatenate([hot, np.arange(1000, 1400), hot[:40]])
    alone = hit_rate(np.concatenate([hot, hot[:40]]), 100) * 240
    assert hit_rate(scanned, 100) * len(scanned) == alone  # the scan of 400 washed out nothing
