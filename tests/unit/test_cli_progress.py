"""Progress goes to standard error where a person watches, and nowhere else."""

from __future__ import annotations

import io

from rich.console import Console

from memfit.cli.progress import progress_line


def test_a_terminal_gets_a_line_that_leaves_nothing_behind() -> None:
    file = io.StringIO()
    with progress_line(Console(file=file, force_terminal=True, width=80)) as progress:
        assert progress is not None
        progress("tracing the step", None, None)
        progress("running", 2, 3)
        progress("a description that is much longer than the line of a terminal of 80 columns can hold", 3, 3)
    assert "a description that is much longer" in file.getvalue()
    assert file.getvalue().endswith("\x1b[2K")


def test_a_file_gets_nothing() -> None:
    file = io.StringIO()
    with progress_line(Console(file=file, force_terminal=False)) as progress:
        assert progress is None
    assert file.getvalue() == ""
