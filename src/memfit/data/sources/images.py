"""Folders of images, decoded by Pillow: one 8-bit RGB column, and labels from the folders' names.

With a size, an image is scaled until it covers it and cut at the centre; without one all must be of one size.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from memfit.data.column_writer import Ragged
from memfit.data.schema import Column
from memfit.data.sources import BLOCK_BYTES, Block, Choices
from memfit.errors import DataError, MissingFrameworkError

ENDS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


def image_files(files: list[Path]) -> list[Path]:
    """Those of the files that are images by their names."""
    return [file for file in files if file.suffix.lower() in ENDS]


def decode(source: IO[bytes] | str, size: tuple[int, int] | None, where: str) -> NDArray[np.uint8]:
    """An image as [height, width, 3] bytes.

    Raises:
        DataError: it cannot be read.
        MissingFrameworkError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingFrameworkError("pillow", "data") from error
    try:
        with Image.open(source) as image:
            picture = image.convert("RGB")
            if size is not None and picture.size != (size[1], size[0]):
                picture = ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.BILINEAR)
            return np.asarray(picture, np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, EOFError) as error:
        raise DataError(where, f"it is no image that can be read: {error}", hint="--skip-bad leaves it out") from error


class FolderSource:
    """Images in a folder, with one level of folders as classes where there is one."""

    def __init__(self, root: Path, files: list[Path], choices: Choices) -> None:
        self.root, self.files, self.choices, self.notes = root, files, choices, list[str]()
        self.rows: int | None = len(files)
        self.classes = sorted({f.relative_to(root).parts[0] for f in files if len(f.relative_to(root).parts) > 1})
        if self.classes and any(len(f.relative_to(root).parts) == 1 for f in files):
            raise DataError(
                str(root), "images lie beside the folders of classes", hint="put each into a class's folder"
            )
        self.columns = [self._image_column()]
        if self.classes:
            self.columns.append(Column("label", "i8", (), meaning="label", names=tuple(self.classes)))

    def _image_column(self) -> Column:
        if self.choices.encoded:
            return Column("image", "u1", ragged=True, meaning="encoded")
        for file in self.files:
            try:
                height, width, _ = decode(str(file), self.choices.size, str(file)).shape
            except DataError:
                if not self.choices.skip_bad:
                    raise
                continue
            self.shape = (height, width, 3)
            first = self.choices.channels == "first"
            shape = (3, height, width) if first else self.shape
            return Column("image", "u1", shape, meaning="image", channels=self.choices.channels)
        raise DataError(str(self.root), "none of its images can be read")

    def _read(self, file: Path) -> NDArray[np.uint8]:
        if self.choices.encoded:
            return np.frombuffer(file.read_bytes(), np.uint8)
        image = decode(str(file), self.choices.size, str(file))
        if image.shape != self.shape:
            raise DataError(
                str(file), f"it is {image.shape[0]} x {image.shape[1]} pixels and {self.files[0].name} is {self.shape[0]} x "
                f"{self.shape[1]}", hint="--size 224x224 brings all to one size, --encoded keeps the files as they are",
            )  # fmt: skip
        return image.transpose(2, 0, 1) if self.choices.channels == "first" else image

    def blocks(self, cursor: Any) -> Iterator[Block]:
        """Blocks of images; the cursor is the number of files before."""
        images: list[NDArray[np.uint8]] = []
        labels: list[int] = []
        held = 0
        for at in range(int(cursor or 0), len(self.files)):
            file = self.files[at]
            try:
                images.append(self._read(file))
            except (DataError, OSError) as error:
                if not self.choices.skip_bad or isinstance(error, OSError):
                    raise DataError(str(file), str(error)) if isinstance(error, OSError) else error from error
                self.notes.append(f"left out {file.name}")
                continue
            if self.classes:
                labels.append(self.classes.index(file.relative_to(self.root).parts[0]))
            held += images[-1].nbytes
            if held >= BLOCK_BYTES:
                yield self._block(images, labels), at + 1
                images, labels, held = [], [], 0
        if images:
            yield self._block(images, labels), len(self.files)

    def _block(self, images: list[NDArray[np.uint8]], labels: list[int]) -> dict[str, Any]:
        if self.choices.encoded:
            joined: Any = Ragged(np.concatenate(images), np.array([len(i) for i in images], np.int64))
        else:
            joined = np.stack(images)
        return {"image": joined, **({"label": np.array(labels, "<i8")} if self.classes else {})}


def decode_bytes(data: bytes, size: tuple[int, int] | None, where: str) -> NDArray[np.uint8]:
    """An image in memory, as ``decode``."""
    return decode(io.BytesIO(data), size, where)
