"""The pytest plug-in: a test marked ``@pytest.mark.memfit_no_leaks`` is repeated, and fails where memory leaks.

    @pytest.mark.memfit_no_leaks              # 24 calls of the test, each one a step
    @pytest.mark.memfit_no_leaks(steps=60)

A test that loops itself takes the fixture ``memfit_watch`` and calls its ``step()``; with the mark it fails on a leak.
Nothing of memfit is imported before a marked test runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from memfit.api.watching import Watch

_STEPS = 24
_KEY = "_memfit_watch"


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest the mark."""
    config.addinivalue_line(
        "markers",
        "memfit_no_leaks(steps=24): call the test so many times and fail where memory grows from call to call",
    )


@pytest.fixture
def memfit_watch(request: pytest.FixtureRequest) -> Iterator[Watch[Any]]:
    """A watch for a test that loops itself: call its ``step()`` in every turn."""
    from memfit.api.watching import watch

    with watch(name="steps of the test") as watching:
        setattr(request.node, _KEY, watching)
        yield watching


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Repeat a marked test, watched."""
    mark = pyfuncitem.get_closest_marker("memfit_no_leaks")
    if mark is None:
        return (yield)  # type: ignore[return-value]
    from memfit.api.watching import watch

    watching = getattr(pyfuncitem, _KEY, None)
    if watching is None:
        steps = mark.kwargs.get("steps", mark.args[0] if mark.args else _STEPS)
        if not isinstance(steps, int) or steps < watch.LEAST_STEPS:
            pytest.fail(
                f"memfit_no_leaks(steps={steps!r}): at least {watch.LEAST_STEPS} steps are needed", pytrace=False
            )
        watching = watch(name="calls of the test")
        names = pyfuncitem._fixtureinfo.argnames
        arguments = {name: pyfuncitem.funcargs[name] for name in names}
        for _ in range(steps - 1):
            watching.step()
            pyfuncitem.obj(**arguments)
        watching.step()
    result = yield
    report = watching.stop()
    if report.leaking:
        from memfit.report.terminal_leaks import leak_text

        pytest.fail(leak_text(report), pytrace=False)
    return result  # type: ignore[return-value]
