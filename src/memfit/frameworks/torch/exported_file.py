"""A ``.pt2`` file of ``torch.export.save`` -> its graph as plain data and its tensors, without running what is inside.

PyTorch's own loader unpickles sample inputs and evaluates the text of symbolic sizes and guards, so a file can run code of
its author's. Here the archive is read as what it is: a zip of JSON (the graph, sizes, names) and of raw bytes (weights),
which are mapped, not copied. What only a pickle holds is refused, and sample inputs are never looked at.

    models/NAME.json                      the graph
    data/weights/NAME_weights_config.json        parameter -> file, shape, strides
    data/weights/weight_0 ...                    raw bytes
    data/constants/...                           the same for constants

Cost: reading the JSON; weights are read where somebody asks for them.
"""

from __future__ import annotations

import json
import mmap
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from memfit.errors import TargetError

DTYPES: dict[int, torch.dtype] = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 10: torch.complex64, 11: torch.complex128, 12: torch.bool, 13: torch.bfloat16, 28: torch.uint16,
    29: torch.float8_e4m3fn, 30: torch.float8_e5m2, 31: torch.float8_e4m3fnuz, 32: torch.float8_e5m2fnuz,
    33: torch.float8_e8m0fnu, 34: torch.uint32, 35: torch.uint64,
}  # fmt: skip
"""Numbers of the file format -> dtypes."""
_STRIDED = 7
_MAJOR = 8
_AGAIN = "export and save the model again with torch.export.save"
DAMAGE = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, StopIteration, RuntimeError)
"""What reading JSON of another shape than expected raises; PyTorch itself says RuntimeError of impossible sizes."""


@dataclass(frozen=True)
class Weight:
    """Where one tensor of the file lies. ``start``: bytes from the begin of the file."""

    file: str
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    trained: bool

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for tensors that share their bytes."""
        return (self.start, self.dtype, self.shape, self.strides)


class ExportedFile:
    """``model``: the JSON of the exported program; ``weights``: by qualified name, constants too."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = str(path)
        if not self.path.is_file():
            raise self.refusal("it is a folder" if self.path.is_dir() else "there is no such file", "write its path")
        try:
            with zipfile.ZipFile(self.path) as archive:
                self._entries = {_inside(info.filename): info for info in archive.infolist()}
                self._choose(archive)
        except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
            raise self.refusal(f"it is no .pt2 archive, or it is damaged ({error})", _AGAIN) from error
        except DAMAGE as error:
            raise self.damaged(error) from error
        self._map: mmap.mmap | None = None

    def refusal(self, why: str, hint: str = "") -> TargetError:
        """The error that says why this file cannot be used."""
        return TargetError(self.name, why, hint)

    def damaged(self, error: Exception) -> TargetError:
        """The refusal where the JSON is not as the format has it."""
        text = str(error).splitlines()[0][:120] if str(error) else ""
        return self.refusal(f"its description is damaged ({type(error).__name__}: {text})", _AGAIN)

    def _choose(self, archive: zipfile.ZipFile) -> None:
        models = [name for name in self._entries if name.startswith("models/") and name.endswith(".json")]
        if not models:
            compiled = any(name.startswith("data/aotinductor/") for name in self._entries)
            why = "it holds compiled machine code" if compiled else "it holds no exported program"
            raise self.refusal(why, "save the ExportedProgram itself with torch.export.save")
        chosen = "models/model.json" if "models/model.json" in models else models[0]
        if len(models) > 1 and chosen != "models/model.json":
            raise self.refusal(f"it holds {len(models)} models, none called 'model'", "save one model in a file")
        model = chosen.removeprefix("models/").removesuffix(".json")
        self.model: dict[str, Any] = json.loads(archive.read(self._entries[chosen]))
        major = self.model["schema_version"]["major"]
        if major != _MAJOR:
            raise self.refusal(f"its format is {major}.x, and {_MAJOR}.x is what can be read", _AGAIN)
        self.weights: dict[str, Weight] = {}
        for folder, kind in (("weights", "weights"), ("constants", "constants")):
            if f"data/{folder}/{model}.pt" in self._entries:
                raise self.refusal(f"its {kind} are pickled, and reading a pickle may run any code", _AGAIN)
            config = json.loads(archive.read(self._entries[f"data/{folder}/{model}_{kind}_config.json"]))["config"]
            for name, row in config.items():
                self.weights[name] = self._weight(archive, f"data/{folder}/{row['path_name']}", name, row)

    def _weight(self, archive: zipfile.ZipFile, entry: str, name: str, row: Mapping[str, Any]) -> Weight:
        if row["use_pickle"] or row["tensor_meta"] is None:
            raise self.refusal(
                f"{name!r} is stored as a pickle, and reading a pickle may run any code",
                "export the model with plain strided tensors only",
            )
        meta = row["tensor_meta"]
        shape = tuple(int(size["as_int"]) for size in meta["sizes"])
        strides = tuple(int(stride["as_int"]) for stride in meta["strides"])
        offset = int(meta["storage_offset"]["as_int"])
        if meta["layout"] != _STRIDED or meta["dtype"] not in DTYPES:
            raise self.refusal(f"{name!r} is no plain tensor (layout {meta['layout']}, type {meta['dtype']})")
        dtype = DTYPES[meta["dtype"]]
        if entry not in self._entries:
            raise self.refusal(f"the bytes of {name!r} are missing from it ({entry})", _AGAIN)
        info = self._entries[entry]
        reach = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) + 1
        needed = 0 if 0 in shape else reach * dtype.itemsize
        if min((*shape, *strides, offset), default=0) < 0 or needed > info.file_size:
            raise self.refusal(f"{name!r} takes {needed} bytes and the file holds {info.file_size} of it", _AGAIN)
        if info.compress_type != zipfile.ZIP_STORED:
            raise self.refusal(f"the bytes of {name!r} are compressed", _AGAIN)
        start = _data_start(archive, info) + offset * dtype.itemsize
        return Weight(entry, start, dtype, shape, strides, bool(row.get("is_param")))

    def tensor(self, weight: Weight) -> torch.Tensor:
        """The tensor over the bytes of the file; not to be written to."""
        if 0 in weight.shape:
            return torch.empty(weight.shape, dtype=weight.dtype)
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        reach = sum((size - 1) * stride for size, stride in zip(weight.shape, weight.strides, strict=True)) + 1
        nbytes = reach * weight.dtype.itemsize
        flat = torch.frombuffer(self._map, dtype=torch.uint8, count=nbytes, offset=weight.start)
        if weight.start % weight.dtype.itemsize:
            flat = flat.clone()
        return flat.view(weight.dtype).as_strided(weight.shape, weight.strides)


def _inside(name: str) -> str:
    """The path within the archive's one folder."""
    return name.partition("/")[2]


def _data_start(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """Where the bytes of an entry begin: after its local header, whose length only the file itself tells."""
    file: Any = archive.fp
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30:
        raise zipfile.BadZipFile("it ends within a header")
    name, extra = struct.unpack("<HH", header[26:30])
    return int(info.header_offset) + 30 + int(name) + int(extra)
