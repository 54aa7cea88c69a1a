"""Progress of long work on standard error: one line that moves where a person watches, nothing elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Report = Callable[[str, int | None, int | None], None]


@contextlib.contextmanager
def progress_line(console: Console | None = None) -> Iterator[Report | None]:
    """A ``progress(description, done, total)`` to hand to the api, or None where standard error is no terminal."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task("starting", total=None)

        def report(description: str, done: int | None = None, total: int | None = None) -> None:
            bar.update(task, description=description[:60], completed=done or 0, total=total)

        yield report
