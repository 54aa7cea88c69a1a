"""Data larger than memory: mapped data sets, their statistics, and loaders that gather and normalise in one pass.

The public names, each imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memfit.data.conversion import convert
    from memfit.data.dataset import Dataset
    from memfit.data.figures import statistics
    from memfit.data.loader import Loader
    from memfit.data.scalers import MinMaxScaler, RobustScaler, StandardScaler
    from memfit.data.sources import Choices
    from memfit.data.transforms import cast, channels, normalize, one_hot, scale
    from memfit.data.tuning import tune
    from memfit.data.windows import TokenLoader

_WHERE = {
    "Choices": "memfit.data.sources",
    "Dataset": "memfit.data.dataset",
    "MinMaxScaler": "memfit.data.scalers",
    "RobustScaler": "memfit.data.scalers",
    "StandardScaler": "memfit.data.scalers",
    "TokenLoader": "memfit.data.windows",
    "tune": "memfit.data.tuning",
    "Loader": "memfit.data.loader",
    "cast": "memfit.data.transforms",
    "channels": "memfit.data.transforms",
    "normalize": "memfit.data.transforms",
    "one_hot": "memfit.data.transforms",
    "scale": "memfit.data.transforms",
    "convert": "memfit.data.conversion",
    "statistics": "memfit.data.figures",
}

__all__ = [
    "Choices",
    "Dataset",
    "Loader",
    "MinMaxScaler",
    "RobustScaler",
    "StandardScaler",
    "TokenLoader",
    "cast",
    "channels",
    "convert",
    "normalize",
    "one_hot",
    "scale",
    "statistics",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'memfit.data' has no attribute {name!r}")
