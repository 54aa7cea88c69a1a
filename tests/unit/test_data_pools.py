"""Pools of a block shuffle: the next is read while one is used, and of several ranks each reads what it needs."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfit.data import Dataset, Loader, convert
from memfit.data.order import Order, part_of
from memfit.data.pools import Share, pool_end, pool_of
from memfit.data.staging import DirectColumn

ROWS = 12_000


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Rows of 4 KiB that say which they are."""
    folder = tmp_path_factory.mktemp("sets")
    np.save(folder / "x.npy", np.arange(ROWS, dtype=np.int64)[:, None].repeat(512, 1))
    return convert(folder / "x.npy", folder / "set")


def test_the_next_pool_is_read_while_the_consumer_holds_a_batch_of_this_one(numbered: Dataset) -> None:
    with Loader(numbered, 64, shuffle=2, access="direct", threads=1) as loader:
        pools, order, at = loader._maker.pools, loader._order(0), 0
        assert pools is not None
        for batch in loader:
            now = pool_of(order, at)
            at += len(batch["x"])
            deadline = time.monotonic() + 20
            while pool_end(order, now) < ROWS and not any(
                key.pool == now + 1 and held.staged is not None for key, held in list(pools._held.items())
            ):
                assert time.monotonic() < deadline, f"pool {now + 1} does not come while pool {now} is used"
                time.sleep(0.001)
            assert len(pools._held) <= 2
        assert at == ROWS


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_together_read_little_more_than_one_alone(
    numbered: Dataset, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = [0]
    really = DirectColumn.read

    def counted(self: DirectColumn, starts: Any, stops: Any, memory: Any) -> Any:
        read[0] += int((stops - starts).sum()) * self.row_bytes
        return really(self, starts, stops, memory)

    monkeypatch.setattr(DirectColumn, "read", counted)
    seen: list[int] = []
    for rank in range(ranks):
        with Loader(numbered, 32, shuffle=2, access="direct", threads=0, rank=rank, ranks=ranks, last="keep") as loader:
            for batch in loader:
                assert (batch["x"] == batch["x"][:, :1]).all()
                seen.extend(batch["x"][:, 0].tolist())
    assert sorted(seen) == list(range(ROWS))
    assert read[0] < 2.0 * ROWS * 4096


@given(st.integers(1, 400), st.integers(1, 9), st.integers(1, 5), st.sampled_from(["keep", "drop", "pad"]), st.data())
def test_a_share_holds_every_position_of_its_rank(rows: int, batch: int, ranks: int, last: str, data: Any) -> None:
    origin = data.draw(st.integers(0, rows))
    rank = data.draw(st.integers(0, ranks - 1))
    held = set(Share(batch, rank, ranks, origin).positions(0, rows, rows).tolist())
    needed: set[int] = set()
    position = origin
    while position < rows:
        start, stop, position = part_of(position, rows, batch, rank, ranks, last)
        needed |= set(range(start, stop))
    assert needed <= held
    assert len(held) <= len(needed) + batch * ranks or ranks == 1


@given(st.integers(1, 500), st.integers(1, 7), st.integers(1, 9))
def test_pools_lie_side_by_side(rows: int, chunk: int, opened: int) -> None:
    order, at, pool = Order(rows, 0, 0, chunk, opened), 0, 0
    while at < rows:
        assert pool_of(order, at) == pool
        end = pool_end(order, pool)
        assert at < end <= rows
        assert pool_of(order, end - 1) == pool
        at, pool = end, pool + 1
