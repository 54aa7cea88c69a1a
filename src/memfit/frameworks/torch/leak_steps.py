"""Steps of a torch program as they happen: what its first optimizer does, and batches of its data loaders."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

Turn = Callable[[str, str, str], None]


def attach(turn: Turn) -> None:
    """Call ``turn(key, name, kind)`` after every step of the optimizer that stepped first, and at every batch. Once."""
    from torch.optim.optimizer import register_optimizer_step_post_hook
    from torch.utils.data import dataloader

    first: list[int] = []

    def stepped(optimizer: Any, *_: Any) -> None:
        if not first:
            first.append(id(optimizer))
        if first[0] == id(optimizer):
            turn("optimizer", f"steps of {type(optimizer).__name__}", "optimizer")

    register_optimizer_step_post_hook(stepped)
    plain = dataloader._BaseDataLoaderIter.__next__

    def following(self: Any) -> Any:
        batch = plain(self)
        turn("loader", "batches of a DataLoader", "loader")
        return batch

    dataloader._BaseDataLoaderIter.__next__ = following


def let_compiler_ignore(functions: tuple[Callable[..., None], ...]) -> Callable[[ModuleType], None]:
    """What to do with ``torch._dynamo.config`` once imported: its compiler passes over calls of ``functions``."""

    def tell(config: ModuleType) -> None:
        ignored = getattr(config, "ignore_logging_functions", None)
        if isinstance(ignored, set):
            ignored.update(functions)

    return tell


def is_imported() -> bool:
    """Whether the program has imported torch."""
    return "torch" in sys.modules
