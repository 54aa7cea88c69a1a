"""Batches of a data set as jax arrays over the loader's own buffers, by DLPack."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


class JaxBatches:
    """The jax side of ``memfit.data.Loader(output="jax")``."""

    allocate = None

    def deliver(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Arrays that share the buffers where jax takes them as they lie (64-byte aligned rows); text and lists stay."""
        return {n: jax.dlpack.from_dlpack(v) if isinstance(v, np.ndarray) else v for n, v in batch.items()}

    def placed(self) -> tuple[int, int]:
        """This process's index and the number of processes."""
        return jax.process_index(), jax.process_count()
