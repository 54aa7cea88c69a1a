"""Events as CSV: what is read, and what is refused with the line it stands on."""

from __future__ import annotations

from pathlib import Path

import pytest

from memfit.allocators.event_table import is_event_table, parse_event_table, read_event_table
from memfit.errors import TraceError
from memfit.ir.requests import Action


def test_events_in_order() -> None:
    found = parse_event_table(
        'Action, ID, Size, Stream\nalloc,a,100,3\nmalloc,"b, c",200,\nfree_requested,a,,\n\nfree,a,,\nempty_cache,,,\n+,a,5,0\n'
    )
    assert found.action.tolist() == [
        Action.ALLOCATE, Action.ALLOCATE, Action.FREE_REQUESTED, Action.FREE, Action.EMPTY_CACHE, Action.ALLOCATE,
    ]  # fmt: skip
    assert found.block.tolist() == [0, 1, 0, 0, 0, 2]
    assert found.nbytes.tolist() == [100, 200, 0, 0, 0, 5]
    assert found.stream.tolist() == [3, 0, 3, 3, 0, 0]
    assert found.label == ("a", "b, c", "a")


def test_other_names_of_columns_and_further_ones() -> None:
    found = parse_event_table("time,op,ptr,bytes\n0.1,malloc,0x7f,64\n0.2,release,0x7f,64\n")
    assert found.action.tolist() == [Action.ALLOCATE, Action.FREE]
    assert is_event_table("time,op,ptr,bytes\n")
    assert not is_event_table("id,lower,upper,size\n1,0,3,4\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("action,id,size\n", "holds no allocation"),
        ("action,id\nalloc,a\n", "line 1: no column 'size'"),
        ("action,id,size\nalloc,a,0\n", "line 2: a size of 0 bytes"),
        ("action,id,size\nalloc,a,-5\n", "line 2: a size of -5 bytes"),
        ("action,id,size\nalloc,a,281474976710657\n", "line 2: a size of 281474976710657 bytes"),
        ("action,id,size\nalloc,a,1e12\n", "line 2: '1e12' is no whole number"),
        ("action,id,size\nalloc,a,5\nfree,a,\nfree,a,\n", "line 4: 'a' is freed twice"),
        ("action,id,size\nalloc,a,5\nfree,b,\n", "line 3: 'b' is freed and was never allocated"),
        ("action,id,size\nalloc,a,5\nalloc,a,5\n", "line 3: 'a' is allocated again before it is freed"),
        ("action,id,size\nalloc,a,5\nfree_requested,a,\nfree_requested,a,\n", "line 4: 'a' is freed twice"),
        ("action,id,size\nalloc,a,5\nfree_requ", "line 3: 1 cells, the header names 3; was the file cut off?"),
        ("action,id,size\ngrow,a,5\n", "line 2: there is no action 'grow'"),
        ("action,id,size\nalloc,,5\n", "line 2: no id"),
        ('action,id,size\nalloc,"a,5\n', "it is no CSV"),
        ("action,id,size,stream\nalloc,a,5,99999999999\n", "line 2: there is no stream 99999999999"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(TraceError) as caught:
        parse_event_table(text)
    assert said in str(caught.value)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes("\ufeffaction,id,size\r\nalloc,a,10\r\n".encode())
    assert read_event_table(path).nbytes.tolist() == [10]
    path.write_bytes(b"action,id,size\nalloc,\xff\xfe,10\n")
    with pytest.raises(TraceError, match="is no text"):
        read_event_table(path)
    with pytest.raises(TraceError, match="No such file"):
        read_event_table(tmp_path / "none.csv")


def test_a_trillion_bytes_are_refused() -> None:
    assert parse_event_table(f"action,id,size\nalloc,a,{10**12 - 1}\n").nbytes.tolist() == [10**12 - 1]
    with pytest.raises(TraceError, match="below 10"):
        parse_event_table(f"action,id,size\nalloc,a,{10**12}\n")
