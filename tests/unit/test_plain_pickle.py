"""Pickles of plain data are read; every pickle that asks for more is refused before anything of it runs."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.allocators.plain_pickle import DEEPEST, load_plain, loads_plain, scan, scan_twin
from memfit.errors import TraceError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner) | st.tuples(inner),
    max_leaves=20,
)
MARKER: list[str] = []


def called(text: str) -> str:
    MARKER.append(text)
    return text


class Hostile:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return called, ("reduced",)


class Held:
    pass


@settings(max_examples=200, deadline=None)
@given(PLAIN, st.integers(0, 5))
def test_plain_data_comes_back(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    if b"codecs" in data or b"bytes" in data:  # protocols below 3 write bytes as a call
        return
    assert scan(data) == scan_twin(data) == (-1, "")
    assert loads_plain(data) == value


GLOBAL = b"cbuiltins\nprint\n"
HOSTILE = {
    "GLOBAL": GLOBAL + b".",
    "STACK_GLOBAL": b"\x80\x04\x8c\x08builtins\x8c\x05print\x93.",
    "INST": b"(S'x'\nibuiltins\nprint\n.",
    "OBJ": b"(" + GLOBAL + b"S'x'\no.",
    "REDUCE": b"N(S'x'\ntR.",
    "NEWOBJ": b"\x80\x02N)\x81.",
    "NEWOBJ_EX": b"\x80\x04N)}\x92.",
    "BUILD": b"}}b.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x00.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "PERSID": b"Pname\n.",
    "BINPERSID": b"S'x'\nQ.",
    "BYTEARRAY8": b"\x80\x05\x96" + struct.pack("<Q", 1) + b"x.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "EMPTY_SET": b"\x80\x04\x8f.",
    "FROZENSET": b"\x80\x04(\x91.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_asks_for_a_class_or_a_call_is_refused_by_name(name: str) -> None:
    with pytest.raises(TraceError, match="class or a call") as refused:
        loads_plain(HOSTILE[name], "hostile.pickle")
    assert scan(HOSTILE[name]) == scan_twin(HOSTILE[name])
    assert str(refused.value).startswith("cannot read hostile.pickle: ")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", [Hostile(), Held(), [1, {"a": Hostile()}], os.system, Path])
def test_objects_are_refused_and_nothing_of_them_runs(value: Any, protocol: int) -> None:
    MARKER.clear()
    with pytest.raises(TraceError):
        loads_plain(pickle.dumps(value, protocol))
    assert MARKER == []


BOMBS = {
    "a length beyond the file": (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"x.", "ends in the middle"),
    "text of 4 GiB": (b"\x80\x04X" + b"\xff\xff\xff\xff" + b"x.", "ends in the middle"),
    "a memo of billions": (b"\x80\x02Nr\xff\xff\xff\x7f.", "not stored before"),
    "a memo of billions, written out": (b"Np999999999\n.", "not stored before"),
    "a memo entry that is not there": (b"\x80\x02h\x07.", "not stored before"),
    "a number of a million digits": (b"L" + b"9" * 1_000_000 + b"L\n.", "longer than any size"),
    "a number of a megabyte": (
        b"\x80\x02\x8b" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20) + b".",
        "longer than any",
    ),
    "tuples nested to break hashing": (b"\x80\x02N" + b"\x85" * (DEEPEST + 1) + b".", "nested deeper"),
    "the same through the memo": (b"\x80\x02Nq\x00" + b"0h\x00\x85q\x00" * (DEEPEST + 1) + b"h\x00.", "nested deeper"),
    "marks nested": (b"(" * (DEEPEST + 1) + b".", "nested deeper"),
    "more taken than given": (b"a.", "takes more than there is"),
    "a mark that is not there": (b"\x80\x02]e.", "takes more than there is"),
    "taken from under a mark": (b"N(a.", "takes more than there is"),
    "nothing at all": (b"", "ends in the middle"),
    "something behind it": (b"N.N.", "something after its end"),
    "no pickle": (b"\xff\xfe{}", "no pickle opcode"),
    "nothing left over": (b".", "takes more than there is"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_and_broken_files_are_refused_before_loading(name: str) -> None:
    data, why = BOMBS[name]
    assert scan(data) == scan_twin(data)
    with pytest.raises(TraceError, match=why):
        loads_plain(data)


@settings(max_examples=150, deadline=None)
@given(PLAIN, st.integers(0, 5), st.data())
def test_every_cut_is_noticed(value: Any, protocol: int, data: st.DataObject) -> None:
    whole = pickle.dumps(value, protocol)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    assert scan(cut) == scan_twin(cut)
    with pytest.raises(TraceError):
        loads_plain(cut)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from(b"().0123NKJ]}aesutlbhqrjgp\x85\x86\x87\x94\x80\x8c\x93R"), max_size=40).map(bytes)
)
def test_scan_and_twin_agree_on_anything(data: bytes) -> None:
    assert scan(data) == scan_twin(data)


def test_files_may_be_packed_and_are_limited(tmp_path: Path) -> None:
    data = pickle.dumps({"a": [1, 2]})
    (tmp_path / "a.gz").write_bytes(gzip.compress(data))
    assert load_plain(tmp_path / "a.gz") == {"a": [1, 2]}
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"\0" * 1_000_000))
    with pytest.raises(TraceError, match="unpacks to more than 10000 bytes"):
        load_plain(tmp_path / "bomb.gz", 10_000)
    (tmp_path / "large").write_bytes(b"\0" * 20_000)
    with pytest.raises(TraceError, match="has 20000 bytes"):
        load_plain(tmp_path / "large", 10_000)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(data)[:-9])
    with pytest.raises(TraceError, match="no whole gzip file"):
        load_plain(tmp_path / "cut.gz")
    with pytest.raises(TraceError, match="No such file"):
        load_plain(tmp_path / "none")
