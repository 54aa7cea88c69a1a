"""Segments: limits, protections, guard pages, and mapped weight files that change or lie."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import memfit
from memfit.errors import SegmentError, WeightFileError
from memfit.runtime.segments import FAULT_EXIT, Segment, WeightSegment


def ran(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own: what faults there takes nothing of ours with it."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)


def test_arrays_lie_one_behind_another_and_end_at_the_limit() -> None:
    segment = Segment("activations", "1KiB")
    first, second = segment.array((8, 8)), segment.array(3, np.int8)
    assert first.ctypes.data == segment.base
    assert second.ctypes.data == segment.base + 256
    first[:] = 2.0
    assert segment.read(252, 8) == np.float32(2.0).tobytes() + bytes(4)
    with pytest.raises(SegmentError, match="96 past the limit") as caught:
        segment.array(200)
    assert (caught.value.segment, caught.value.offset) == ("activations", 320)
    segment.reset()
    assert segment.array(256).size == 256


def test_protection_is_kept_by_accessors_and_arrays() -> None:
    segment = Segment("gradients", 100)
    segment.protect("read")
    with pytest.raises(SegmentError, match="write at offset 4 of segment 'gradients': its protection is 'read'"):
        segment.write(4, b"ab")
    with pytest.raises(ValueError, match="read-only"):
        segment.array(4)[0] = 1
    with segment.writable():
        segment.write(4, b"ab")
    assert segment.protection == "read"
    assert segment.read(4, 2) == b"ab"
    with pytest.raises(SegmentError, match="no protection 'execute'"):
        segment.protect("execute")


def test_a_closed_segment_says_so() -> None:
    segment = Segment("scratch", 64)
    segment.close()
    segment.close()
    with pytest.raises(SegmentError, match="its protection is 'none'"):
        segment.read(0, 1)
    with pytest.raises(SegmentError, match="closed"):
        segment.protect("read")


@pytest.mark.parametrize("size", [0, -5])
def test_a_size_must_be_one(size: int) -> None:
    with pytest.raises((SegmentError, memfit.SizeError)):
        Segment("none", size)


def test_more_than_there_is_is_refused() -> None:
    with pytest.raises(SegmentError, match="the system does not give"):
        Segment("everything", 1 << 60)


@pytest.mark.parametrize(("at", "where"), [(1003, "3 bytes past its limit of 1000"), (-1, "1 bytes before its base")])
def test_writes_where_no_page_ends_are_found(at: int, where: str) -> None:
    segment = Segment("scratch", 1000)
    bytes_around = np.lib.stride_tricks.as_strided(segment.buffer(), (1010,), (1,))
    segment.check()
    target = bytes_around[at:] if at > 0 else np.lib.stride_tricks.as_strided(segment.buffer()[:1], (2,), (-1,))[1:]
    target[0] = 1
    with pytest.raises(SegmentError, match=where):
        segment.check()


_BREACH = """
import sys, numpy as np, memfit
s = memfit.Segment("key/value cache", 4096)
if sys.argv[1] == "guard":
    np.lib.stride_tricks.as_strided(s.buffer(), (4097,), (1,))[4096] = 1
elif sys.argv[1] == "protected":
    s.protect("read"); s.buffer()[17] = 1
elif sys.argv[1] == "closed":
    a = s.buffer(); s.close(); a.sum()
elif sys.argv[1] == "elsewhere":
    import ctypes; ctypes.string_at(8)
elif sys.argv[1] == "many":
    made = [memfit.Segment(f"segment {i}", 64) for i in range(500)]
    made[37].protect("none"); del made[5:9]; made[33].buffer()[0]
print("went on")
"""


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("guard", "segment 'key/value cache': 0 bytes past its limit of 4096 bytes"),
        ("protected", "write out of bounds or against the protection of segment 'key/value cache': offset 17 of 4096"),
        ("closed", "offset 0 of 4096 bytes, which may not be accessed"),
        ("many", "segment 'segment 37'"),
    ],
)
def test_a_fault_in_native_code_names_the_segment_and_ends_the_process(how: str, said: str) -> None:
    done = ran(_BREACH, how)
    assert done.returncode == FAULT_EXIT
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert "went on" not in done.stdout


def test_a_fault_elsewhere_goes_to_who_was_there_before() -> None:
    done = ran(_BREACH, "elsewhere")
    assert done.returncode == -11
    assert "segment" not in done.stderr
    done = ran("import faulthandler; faulthandler.enable()\n" + _BREACH, "elsewhere")
    assert done.returncode == -11
    assert "Fatal Python error: Segmentation fault" in done.stderr


def written(path: Path, tensors: dict[str, np.ndarray], **lies: object) -> Path:
    """A safetensors file; ``lies``: entries put over the true ones."""
    header, data = {}, b""
    for name, array in tensors.items():
        end = len(data) + array.nbytes
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [len(data), end]}
        data += array.tobytes()
    header |= lies  # type: ignore[arg-type]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return written(
        tmp_path / "w.safetensors", {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.ones(5000, np.float32)}
    )


def test_mapped_weights_are_the_file_and_read_only(weights: Path) -> None:
    segment = WeightSegment(weights)
    offset, nbytes = segment.place("a")
    found = segment.array((3, 4), offset=offset)
    assert nbytes == 48
    np.testing.assert_array_equal(found, np.arange(12, dtype=np.float32).reshape(3, 4))
    assert segment.protection == "read"
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1
    with pytest.raises(SegmentError, match="write at offset"):
        segment.write(offset, b"x")
    with pytest.raises(SegmentError, match="no tensor 'c'"):
        segment.place("c")
    segment.check()


def test_what_is_written_to_private_pages_never_reaches_the_file(weights: Path) -> None:
    before = weights.read_bytes()
    segment = WeightSegment(weights)
    with segment.writable():
        segment.write(segment.place("b")[0], b"zzzz")
    assert weights.read_bytes() == before


def rewritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))


def replaced(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    os.replace(other, path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (rewritten, "written to while it was mapped"),
        (replaced, "another file took its place"),
        (lambda path: path.unlink(), "gone while mapped"),
        (lambda path: os.truncate(path, 20000), "bytes when it was mapped and is 20000 now"),
    ],
)
def test_a_file_that_changes_while_mapped_is_noticed(weights: Path, change: object, said: str) -> None:
    segment = WeightSegment(weights)
    change(weights)  # type: ignore[operator]
    with pytest.raises(WeightFileError, match=said):
        segment.check()


def test_reading_past_the_end_of_a_file_cut_while_mapped_is_an_error(weights: Path) -> None:
    segment = WeightSegment(weights)
    os.truncate(weights, 4096)
    with pytest.raises(SegmentError, match="became shorter while it was mapped"):
        segment.read(segment.limit - 8, 8)


def test_native_code_that_reads_there_ends_with_the_message(weights: Path) -> None:
    code = """
import os, sys, memfit
s = memfit.WeightSegment(sys.argv[1])
a = s.array(5000, offset=s.place("b")[0])
os.truncate(sys.argv[1], 4096)
print(float(a.sum()))
"""
    done = ran(code, str(weights))
    assert done.returncode == FAULT_EXIT
    assert "the file behind it became shorter" in done.stderr
    assert "segment 'weights'" in done.stderr


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 1 << 40]}, "cut short or its header lies"),
        ({"dtype": "F32", "shape": [300, 4], "data_offsets": [0, 48]}, "needs 4800 bytes"),
        ({"dtype": "F32", "shape": [3, 4], "data_offsets": [48, 0]}, "before it begins"),
        ({"dtype": "F99", "shape": [3, 4], "data_offsets": [0, 48]}, "unknown dtype"),
    ],
)
def test_a_header_that_lies_is_refused_before_anything_is_mapped(tmp_path: Path, lie: object, said: str) -> None:
    path = written(tmp_path / "lie.safetensors", {"a": np.zeros((3, 4), np.float32)}, a=lie)
    with pytest.raises(WeightFileError, match=said):
        WeightSegment(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(WeightFileError, match="No such file"):
        WeightSegment(tmp_path / "none")
    (tmp_path / "short").write_bytes(b"abc")
    with pytest.raises(WeightFileError, match="fewer than the 8"):
        WeightSegment(tmp_path / "short")
    with pytest.raises(WeightFileError, match="regular file"):
        WeightSegment(tmp_path)
