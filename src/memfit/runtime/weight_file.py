"""Weights on disk: which files hold a model, and reading pieces of them into memory that is used again.

A folder holds ``model.safetensors``, or ``model.safetensors.index.json`` that says which file holds which tensor. Every
header is checked on opening (``safetensors_header``), the index against the headers. Reads go to the page cache where
the piece is there already (``RWF_NOWAIT``), else past it (``O_DIRECT`` through one aligned buffer), so that a pass over a
large file neither counts on the cache nor fills it; ``keep=True`` reads as everybody does. After each read the file must
still be the one whose header was read: a change while it is in use is an error, not wrong numbers. A writer that maps the
file and leaves its time unchanged is not seen.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from memfit.errors import WeightFileError
from memfit.ir.safetensors_header import FileIdentity, SafetensorsHeader, StoredTensor, header_of

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
BLOCK = 4096
"""Bytes; what positions and addresses of reads past the page cache are multiples of."""
_CANNOT = {errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


def weight_files(path: str | Path) -> list[Path]:
    """The safetensors files that ``path`` (a file, an index or a folder) stands for.

    Raises:
        WeightFileError: there are none, or the index is not one.
    """
    path = Path(path)
    if path.is_dir():
        if (path / INDEX).exists():
            return _indexed(path / INDEX)
        if (path / SINGLE).exists():
            return [path / SINGLE]
        found = sorted(path.glob("*.safetensors"))
        if not found:
            raise WeightFileError(str(path), "the folder holds no .safetensors file", "save the model into it first")
        return found
    return _indexed(path) if path.name.endswith(".json") else [path]


def _indexed(index: Path) -> list[Path]:
    return [index.parent / name for name in dict.fromkeys(weight_map(index).values())]


def weight_map(index: Path) -> dict[str, str]:
    """Tensor -> file of an index, each file a plain name in the index's folder.

    Raises:
        WeightFileError: the index cannot be read, is no index, or points out of its folder.
    """
    try:
        content = json.loads(index.read_text("utf-8"))
    except OSError as error:
        raise WeightFileError(str(index), error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise WeightFileError(str(index), f"it is no JSON ({str(error)[:120]})") from error
    found = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not found:
        raise WeightFileError(str(index), "it has no weight_map")
    for name, file in found.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise WeightFileError(
                str(index), f"it puts {name!r} into {file!r}, which is no .safetensors file beside it"
            )
    return found


class WeightFiles:
    """Open, checked safetensors files. Reads are for one thread at a time."""

    def __init__(self, path: str | Path, *, keep: bool = False) -> None:
        """Open what ``path`` stands for; ``keep``: leave what is read in the page cache.

        Raises:
            WeightFileError: a file cannot be opened or is not what it says; a tensor stands in two files.
        """
        self.path, self.keep = str(path), keep
        self.headers: list[SafetensorsHeader] = []
        self.tensors: dict[str, tuple[int, StoredTensor]] = {}
        self._buffered: list[int] = []
        self._direct: list[int] = []
        self._bounce: mmap.mmap | None = None
        self.bytes_read = 0
        try:
            files = weight_files(path)
            for file in files:
                self._open(file)
            index = Path(path) / INDEX if Path(path).is_dir() else Path(path)
            if index.name.endswith(".json") and index.exists():
                self._check_index(index)
        except BaseException:
            self.close()
            raise

    def _open(self, file: Path) -> None:
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise WeightFileError(str(file), error.strerror or str(error), "is the model complete?") from error
        self._buffered.append(descriptor)
        header = header_of(descriptor, str(file))
        for name, tensor in header.tensors.items():
            if name in self.tensors:
                other = self.headers[self.tensors[name][0]].path
                raise WeightFileError(str(file), f"tensor {name!r} stands in {other} too", "keep one of them")
            self.tensors[name] = (len(self.headers), tensor)
        self.headers.append(header)
        direct = -1
        if not self.keep and hasattr(os, "O_DIRECT"):
            with contextlib.suppress(OSError):
                direct = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        self._direct.append(direct)

    def _check_index(self, index: Path) -> None:
        for name, file in weight_map(index).items():
            where = self.tensors.get(name)
            if where is None or Path(self.headers[where[0]].path).name != file:
                raise WeightFileError(str(index), f"it puts {name!r} into {file}, which does not hold it")

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(header.nbytes for header in self.headers)

    def buffer_bytes(self, longest: int) -> int:
        """Bytes of memory that reading pieces of up to ``longest`` bytes takes besides where they go."""
        return longest + 2 * BLOCK if any(descriptor >= 0 for descriptor in self._direct) else 0

    def read_into(self, target: memoryview, file: int, offset: int) -> None:
        """Fill ``target`` (bytes) from ``offset`` of file number ``file``.

        Raises:
            WeightFileError: the file changed since its header was read, or cannot be read.
        """
        try:
            done = 0 if self.keep or self._direct[file] < 0 else self._cached(target, file, offset)
            if done < len(target):
                direct = self._direct[file] >= 0
                done += (self._past_cache if direct else self._plain)(target[done:], file, offset + done)
        except OSError as error:
            raise WeightFileError(
                self.headers[file].path, f"reading failed: {error.strerror}", "is the disk well?"
            ) from error
        self.check_unchanged(file)
        if done < len(target):
            raise WeightFileError(self.headers[file].path, f"it ended {len(target) - done} bytes early")
        self.bytes_read += len(target)

    def read_row(self, target: memoryview, file: int, offset: int) -> None:
        """Fill a small ``target`` through the page cache, from any thread; ``check_unchanged`` is the caller's.

        Raises:
            WeightFileError: the file cannot be read or has ended.
        """
        try:
            done = self._plain(target, file, offset)
        except OSError as error:
            raise WeightFileError(
                self.headers[file].path, f"reading failed: {error.strerror}", "is the disk well?"
            ) from error
        if done < len(target):
            raise WeightFileError(self.headers[file].path, f"it ended {len(target) - done} bytes early")

    def expect(self, file: int, offset: int, nbytes: int) -> None:
        """Tell the system that a piece is read soon."""
        os.posix_fadvise(self._buffered[file], offset, nbytes, os.POSIX_FADV_WILLNEED)

    def check_unchanged(self, file: int) -> None:
        """Raise where file number ``file`` is no longer the one whose header was read, open or by its path."""
        header = self.headers[file]
        now = FileIdentity.of(self._buffered[file])
        try:
            status = os.stat(header.path)
            same = (status.st_dev, status.st_ino) == (now.device, now.inode)
        except OSError:
            same = False
        if now == header.identity and same:
            return
        if now.nbytes != header.identity.nbytes:
            what = f"its size went from {header.identity.nbytes} to {now.nbytes} bytes"
        else:
            what = "it was written to" if now != header.identity else "another file stands in its place"
        raise WeightFileError(header.path, f"it changed while it was in use: {what}", "run again with the new file")

    def _cached(self, target: memoryview, file: int, offset: int) -> int:
        """Bytes at the start of the piece that the page cache had."""
        done = 0
        while done < len(target):
            try:
                got = os.preadv(self._buffered[file], [target[done:]], offset + done, os.RWF_NOWAIT)
            except OSError as error:
                if error.errno in _CANNOT:
                    break
                raise
            if got == 0:
                break
            done += got
        return done

    def _plain(self, target: memoryview, file: int, offset: int) -> int:
        done = 0
        while done < len(target):
            got = os.preadv(self._buffered[file], [target[done:]], offset + done)
            if got == 0:
                break
            done += got
        if not self.keep:
            os.posix_fadvise(self._buffered[file], offset, len(target), os.POSIX_FADV_DONTNEED)
        return done

    def _past_cache(self, target: memoryview, file: int, offset: int) -> int:
        begin = offset // BLOCK * BLOCK
        end = -(-(offset + len(target)) // BLOCK) * BLOCK
        if self._bounce is None or len(self._bounce) < end - begin:
            self._bounce = mmap.mmap(-1, end - begin)
        whole, reached = memoryview(self._bounce), begin
        try:
            while reached < end:
                got = os.preadv(self._direct[file], [whole[reached - begin : end - begin]], reached)
                reached += got
                if got == 0 or got % BLOCK:
                    break
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            os.close(self._direct[file])
            self._direct[file] = -1
            return self._plain(target, file, offset)
        done = max(0, min(reached - offset, len(target)))
        source = whole[offset - begin : offset - begin + done]
        np.copyto(np.frombuffer(target[:done], np.uint8), np.frombuffer(source, np.uint8))  # lets other threads run
        return done

    def close(self) -> None:
        """Close the files; nothing can be read afterwards."""
        for descriptor in (*self._buffered, *self._direct):
            if descriptor >= 0:
                os.close(descriptor)
        self._buffered, self._direct, self._bounce = [], [], None


def described(names: Sequence[str], most: int = 4) -> str:
    """Some names for a message: the first ones and how many more."""
    shown = ", ".join(repr(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
