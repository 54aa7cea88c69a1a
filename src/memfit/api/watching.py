"""``memfit.watch``: the leak hunt around a loop of one's own, or in a service.

>>> for batch in memfit.watch(loader): train(batch)          # doctest: +SKIP
>>> with memfit.watch() as watch:                            # doctest: +SKIP
...     for batch in loader:
...         train(batch)
...         watch.step()
>>> watch.report.leaking                                     # doctest: +SKIP
>>> service = memfit.watch.serve()                           # then: memfit leaks --pid N   # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from memfit.api.leak_hunt import LEAST_JUDGED, Hunt
from memfit.api.watch_service import Service, serve
from memfit.errors import LeakError
from memfit.ir.leak import LeakReport

T = TypeVar("T")


class Watch(Generic[T]):
    """One watched loop: iterate over it, or use it as a context and call ``step``."""

    def __init__(self, items: Iterable[T] | None, name: str) -> None:
        self._items = items
        self._hunt: Hunt | None = None
        self._name = name
        self._report: LeakReport | None = None

    def step(self) -> None:
        """A step begins. About 1 us; a few steps of every run are looked at more closely."""
        if self._hunt is None:
            self._hunt = Hunt(self._name)
        self._hunt.watcher.turn("declared", self._name, "declared")

    def stop(self) -> LeakReport:
        """End the watching and judge; nothing happens the second time. Up to some seconds where something grows."""
        if self._report is None:
            hunt = self._hunt or Hunt(self._name)
            hunt.judge_if_new()
            hunt.watcher.close()
            self._report = hunt.report()
            self._hunt = None
        return self._report

    @property
    def report(self) -> LeakReport:
        """The verdict; ends the watching."""
        return self.stop()

    def check(self) -> LeakReport:
        """End the watching; the verdict where nothing leaks, or too few steps ran to tell.

        Raises:
            LeakError: something leaks.
        """
        report = self.stop()
        if report.leaking:
            raise LeakError(report)
        return report

    def __iter__(self) -> Iterator[T]:
        if self._items is None:
            raise TypeError("memfit.watch() without an iterable: use it in a with statement and call step()")
        try:
            for item in self._items:
                self.step()
                yield item
        finally:
            self.stop()

    def __enter__(self) -> Watch[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Entry:
    """What ``memfit.watch`` is: called around a loop, and the door to the service mode."""

    serve = staticmethod(serve)
    Service = Service
    LEAST_STEPS = LEAST_JUDGED

    def __call__(self, items: Iterable[Any] | None = None, *, name: str = "watched steps") -> Watch[Any]:
        """Watch a loop for leaks.

        Args:
            items: what the loop runs over; left out, call ``step`` inside a ``with`` block.
            name: what a step is called in the report.
        """
        return Watch(items, name)


watch = _Entry()
