"""Trace: the allocation and free events of a run, real or fake, with the op, module and line behind each.

Columns, not objects: a trace of a million events is a few NumPy arrays. In time order, event ``e`` changes the live
bytes by ``delta[e]`` (+n: storage ``storage[e]`` is allocated, -n: freed) while op ``op[e]`` runs::

    e        0      1      2      3
    storage  0      1      1      2          storage 1 lives in the half-open interval [1, 2)
    delta    +64    +32    -32    +16

Bytes are *live* bytes (of storages that exist). ``kind`` says whether they are *projected* (a fake run) or *measured*.
Files are ``.npz`` without pickles; a hostile file is refused, never executed.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit.errors import TraceError
from memfit.files import write_atomically

FORMAT = 1


class Category(StrEnum):
    """What a storage is for. The order is the stacking order of charts."""

    PARAMETERS = "parameters"
    BUFFERS = "buffers"
    INPUTS = "inputs"
    OPTIMIZER_STATE = "optimizer_state"
    GRADIENTS = "gradients"
    ACTIVATIONS = "activations"
    TEMPORARIES = "temporaries"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class TraceOp:
    """One operation. ``phase``: build, forward, backward, optimizer or between; ``step``: 0 for the first (build: -1)."""

    name: str
    step: int = 0
    phase: str = "forward"
    module: str = ""
    line: str = ""


@dataclass(frozen=True, slots=True)
class TraceStorage:
    """One storage. ``op``: index of the op that made it; ``label``: parameter or buffer name where it has one."""

    nbytes: int
    category: Category
    op: int
    shape: tuple[int, ...] = ()
    dtype: str = ""
    label: str = ""


@dataclass(frozen=True)
class Trace:
    """Events of a run; see the module text. ``meta``: device, versions, target, whatever explains the numbers."""

    kind: str
    ops: tuple[TraceOp, ...]
    storages: tuple[TraceStorage, ...]
    storage: npt.NDArray[np.int64]
    delta: npt.NDArray[np.int64]
    op: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64] | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.delta)

    def save(self, path: str | Path) -> None:
        """Write the trace as ``.npz`` (no pickles), whole or not at all."""
        header = {
            "format": FORMAT, "kind": self.kind, "meta": self.meta,
            "ops": [asdict(op) for op in self.ops], "storages": [asdict(storage) for storage in self.storages],
        }  # fmt: skip
        columns: dict[str, Any] = {"storage": self.storage, "delta": self.delta, "op": self.op}
        if self.seconds is not None:
            columns["seconds"] = self.seconds
        text = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        archive = io.BytesIO()
        np.savez_compressed(archive, header=text, **columns)
        write_atomically(path, archive.getvalue())

    @staticmethod
    def load(path: str | Path) -> Trace:
        """Read what ``save`` wrote.

        Raises:
            TraceError: the file is missing, damaged, or no trace.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                header = json.loads(archive["header"].tobytes())
                if header["format"] != FORMAT:
                    raise TraceError(str(path), f"trace format {header['format']}, this memfit reads {FORMAT}")
                storages = tuple(
                    TraceStorage(**{**row, "category": Category(row["category"]), "shape": tuple(row["shape"])})
                    for row in header["storages"]
                )
                return Trace(
                    header["kind"], tuple(TraceOp(**row) for row in header["ops"]), storages,
                    archive["storage"], archive["delta"], archive["op"],
                    archive.get("seconds"), header["meta"],
                )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise TraceError(str(path), f"not a memfit trace ({error})") from error
