"""``memfit.pool``: arrays and CPU tensors from memfit's pool, from ``install`` on or inside ``with memfit.pool():``.

>>> import memfit                                        # doctest: +SKIP
>>> memfit.pool.install(); train(); print(memfit.pool.statistics())
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from memfit.errors import PoolError, PoolWarning
from memfit.units import format_bytes

NO_COMPILER = (
    "memfit.pool: there is no C++ compiler, so CPU tensors do not come from the pool; malloc was told to keep what is freed "
    "instead (mallopt), which is about as fast and keeps more memory. Install a C++ compiler (or name one in CXX)."
)


@dataclass(frozen=True)
class PoolStatistics:
    """What the pool holds and did; bytes are measured. ``arrays`` and ``tensors``: who serves them now.

    ``live``: of blocks above 32 KiB, as requested; ``allocated``: the same, in whole granules of 4 KiB; ``small_live``:
    of smaller ones, which malloc serves through caches. ``touched``: pages in use since the system gave them, an upper
    bound of what is resident of the pool; ``reserved``: addresses made usable.
    """

    arrays: str
    tensors: str
    live: int
    live_blocks: int
    allocated: int
    touched: int
    reserved: int
    peak_live: int
    peak_allocated: int
    peak_touched: int
    given_back: int
    allocations: int
    frees: int
    holes: int
    refused: int
    small_live: int
    small_cached: int
    small_allocations: int
    small_frees: int
    plans: int
    departures: int
    periods: int
    planned: int
    plan_events: int
    plan_bytes: int

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return dict(vars(self))

    def __str__(self) -> str:
        plan = (
            f"follows a plan of {self.plan_events} events in {format_bytes(self.plan_bytes)}"
            if self.plan_events
            else "follows no plan"
        )
        return (
            f"pool: {self.live_blocks} blocks of {format_bytes(self.live)} live, peak {format_bytes(self.peak_live)}; "
            f"{format_bytes(self.touched)} touched, peak {format_bytes(self.peak_touched)}; {plan}, "
            f"{self.planned} of {self.allocations} requests served from plans"
        )


class CpuPool:
    """The one pool of the process, ``memfit.pool``."""

    def __init__(self) -> None:
        self._arrays, self._tensors = "numpy", "torch"  # who serves them
        self._installed = False
        self._finder: _TorchFinder | None = None

    def install(
        self, *, arrays: bool = True, tensors: bool = True, give_back_after: float | None = 10.0, planning: bool = True
    ) -> None:
        """From now on NumPy arrays and PyTorch CPU tensors come from the pool.

        Arrays: those of this thread and of threads that Python starts later. Tensors: all, at once where torch is
        imported, else when it is. The first time on a machine a small allocator is compiled against torch (5 s).

        Args:
            arrays, tensors: which of the two.
            give_back_after: seconds that memory stays unused before the system gets it back; None: never.
            planning: whether steps that repeat are served from a fixed plan.

        Raises:
            PoolError: it is installed already, or this torch cannot be given another allocator; nothing is changed.

        Warns:
            PoolWarning: there is no compiler; tensors are left to malloc, told to keep what is freed.
        """
        from memfit.runtime import pool

        if self._installed:
            raise PoolError(
                f"it is installed already (arrays from {self._arrays}, tensors from {self._tensors})",
                "uninstall it first to change how, or use `with memfit.pool():`, which may be nested",
            )
        if give_back_after is not None and not give_back_after >= 0:
            raise PoolError(f"give_back_after is {give_back_after!r}", "give seconds from 0 on, or None for never")
        pool.settings(pool.NEVER if give_back_after is None else int(give_back_after), planning)
        pool.set_active(True)
        if tensors:
            try:
                self._serve_tensors()
            except BaseException:
                pool.set_active(False)
                raise
        if arrays:
            pool.serve_arrays()
            self._arrays = "pool"
        self._installed = True

    def uninstall(self) -> None:
        """New arrays and tensors come from where they came before. Living ones stay valid, and go back to the pool.

        Nothing happens where it is not installed.

        Warns:
            PoolWarning: blocks of the pool are alive; says how many and how large.
        """
        from memfit.runtime import pool

        if not self._installed:
            return
        if self._finder is not None:
            self._finder.remove()
            self._finder = None
        elif self._tensors in ("pool", "mallopt"):
            from memfit.frameworks.torch import pool_allocator

            pool_allocator.uninstall(self._tensors)
        pool.stop_serving_arrays()
        pool.set_active(False)
        self._installed, self._arrays, self._tensors = False, "numpy", "torch"
        self.trim()
        left = self.statistics()
        if left.live_blocks:
            warnings.warn(
                f"memfit.pool: uninstalled while {left.live_blocks} blocks ({format_bytes(left.live)}) of it are alive; they "
                "stay valid, and their memory goes back to the pool when they are freed",
                PoolWarning,
                stacklevel=2,
            )

    @property
    def installed(self) -> bool:
        """Whether it serves."""
        return self._installed

    @contextmanager
    def __call__(self, **how: Any) -> Iterator[CpuPool]:
        """``install`` .. ``uninstall`` around a block of code; left as it was where it was installed before.

        ``how``: as for ``install``. Blocks that outlive the block of code are no surprise here: nothing is said of them.
        """
        if self._installed:
            yield self
            return
        self.install(**how)
        try:
            yield self
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PoolWarning)
                self.uninstall()

    def statistics(self) -> PoolStatistics:
        """What the pool holds and did since the process began. Cost: microseconds."""
        from memfit.runtime.pool import figures

        raw = figures()
        renamed = {
            "live": "live_bytes", "allocated": "allocated_bytes", "touched": "touched_bytes", "reserved": "reserved_bytes",
            "peak_live": "peak_live_bytes", "peak_allocated": "peak_allocated_bytes", "peak_touched": "peak_touched_bytes",
            "given_back": "given_back_bytes", "small_live": "small_live_bytes", "small_cached": "small_cached_bytes",
        }  # fmt: skip
        names = [name for name in PoolStatistics.__dataclass_fields__ if name not in ("arrays", "tensors")]
        return PoolStatistics(self._arrays, self._tensors, **{name: raw[renamed.get(name, name)] for name in names})

    def trim(self) -> int:
        """Give all free memory back to the system now; returns the bytes. A plan that is followed is left."""
        from memfit.runtime.pool import trim

        return trim()

    def step(self) -> None:
        """Say that a step ends here. Steps that ask for the same are then planned after the second, not the third."""
        from memfit.runtime.pool import end_step

        end_step()

    def _serve_tensors(self) -> None:
        if "torch" in sys.modules:
            self._torch_is_here()
        elif importlib.util.find_spec("torch") is not None:
            self._tensors = "pool, once torch is imported"
            self._finder = _TorchFinder(self)
            sys.meta_path.insert(0, self._finder)

    def _torch_is_here(self) -> None:
        from memfit.frameworks.torch import pool_allocator

        self._finder = None
        self._tensors = pool_allocator.install()
        if self._tensors == "mallopt":
            warnings.warn(NO_COMPILER, PoolWarning, stacklevel=4)


class _TorchFinder(importlib.abc.MetaPathFinder):
    """Waits for ``import torch``, lets it happen, and then has the pool serve its tensors."""

    def __init__(self, pool: CpuPool) -> None:
        self._pool = pool

    def remove(self) -> None:
        """Wait no longer."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of torch, its loader wrapped; None for everything else."""
        if name != "torch":
            return None
        self.remove()
        spec = importlib.util.find_spec("torch")
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_serve(module: ModuleType) -> None:
            load(module)
            try:
                self._pool._torch_is_here()
            except PoolError as error:  # not a reason for the program's `import torch` to fail
                self._pool._tensors = "torch"
                warnings.warn(f"{error}; tensors stay with torch", PoolWarning, stacklevel=2)

        spec.loader.exec_module = load_and_serve  # type: ignore[method-assign]
        return spec


pool = CpuPool()
"""The pool of this process."""
