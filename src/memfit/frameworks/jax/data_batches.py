"""Batches of a data set as jax arrays over the loader's own buffers."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


class JaxBatches:
    """The jax side of ``memfit.data.Loader(output="jax")``."""

    allocate = None

    def deliver(self, batch: dict[str, Any], brains: frozenset[str]) -> dict[str, Any]:
        """Arrays that share the buffers where jax takes them as they lie; columns of ``brains`` are bits of bfloat16.

        jax copies what does not start at a multiple of 64 bytes, and 64-bit numbers while ``jax_enable_x64`` is off,
        which become 32-bit ones. Text and lists stay.
        """
        return {name: _array(value, name in brains) for name, value in batch.items()}

    def placed(self) -> tuple[int, int]:
        """This process's index and the number of processes."""
        return jax.process_index(), jax.process_count()


def _array(value: Any, brain: bool = False) -> Any:
    if not isinstance(value, np.ndarray):
        return [_array(item) for item in value] if value and isinstance(value[0], np.ndarray) else value
    if brain and value.dtype == np.uint16:
        # NumPy's side of DLPack does not know bfloat16.
        return jax.device_put(value.view(jax.numpy.bfloat16), jax.devices("cpu")[0], may_alias=True)
    return jax.dlpack.from_dlpack(value)
