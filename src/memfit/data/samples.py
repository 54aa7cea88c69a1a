"""A picture of some rows of an image column, spread over the data set: what a look at the data needs."""

from __future__ import annotations

import io
import math

import numpy as np

from memfit.data.dataset import Dataset
from memfit.data.sources.images import decode_bytes
from memfit.errors import DataError, MissingFrameworkError

_MOST, _SIDE = 25, 160


def samples_picture(data: Dataset, name: str | None = None) -> bytes:
    """A PNG of up to 25 images of a column (the first of images, where left out).

    Raises:
        DataError: there is no column of images, or no rows.
        MissingFrameworkError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingFrameworkError("pillow", "data") from error
    found = [c for c in data.schema.columns if c.meaning in ("image", "encoded") and name in (None, c.name)]
    if not found or not len(data):
        raise DataError(str(data.folder), "it has no column of images" if len(data) else "it has no rows")
    column = found[0]
    shown = min(_MOST, len(data))
    across = math.ceil(math.sqrt(shown))
    sheet = Image.new("RGB", (across * (_SIDE + 4) + 4, math.ceil(shown / across) * (_SIDE + 4) + 4), "white")
    for place, row in enumerate(np.linspace(0, len(data) - 1, shown).astype(int)):
        values = data.row(column.name, int(row))
        if column.meaning == "encoded":
            pixels = decode_bytes(values.tobytes(), None, data.file(column.name).path)
        else:
            pixels = values.transpose(1, 2, 0) if column.channels == "first" else values
        if pixels.shape[-1] == 1:
            pixels = np.repeat(pixels, 3, axis=-1)
        picture = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
        picture.thumbnail((_SIDE, _SIDE))
        sheet.paste(picture, (4 + place % across * (_SIDE + 4), 4 + place // across * (_SIDE + 4)))
    target = io.BytesIO()
    sheet.save(target, "PNG")
    return target.getvalue()
