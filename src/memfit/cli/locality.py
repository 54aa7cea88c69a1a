"""`memfit locality`: where an access pattern misses, why, and a better order, proved by timing."""

from __future__ import annotations

from typing import Any

import click

from memfit.cli.answer import Answer
from memfit.cli.options import html_option, json_option, settings_option
from memfit.cli.progress import progress_line
from memfit.errors import NestError
from memfit.files import write_atomically


@click.command("locality")
@click.argument("pattern", metavar="PATTERN|TARGET")
@click.option(
    "--machine", metavar="NAME|FILE", help="A ready machine (memfit machine --list) or a file of memfit machine --json."
)
@click.option("--cache", metavar="SIZE/WAYS,...", help="Levels instead: 48KiB/12,1MiB/16,32MiB/16.")
@click.option(
    "--prove/--no-prove",
    default=None,
    help="Compile and time the advice on this machine (where a compiler is, unless told).",
)
@click.option("--no-advice", is_flag=True, help="Analyse only.")
@settings_option
@html_option
@json_option
def command(
    pattern: str, machine: str | None, cache: str | None, prove: bool | None, no_advice: bool, settings: dict[str, Any],
    html: str | None, as_json: bool,
) -> Answer:  # fmt: skip
    """Misses of PATTERN by level and array, why, how far from the least possible, and a better order, tiles, padding.

    TARGET is a program, file.py:function or package.module:function: which of its operations memory limits here, and which
    layouts (channels last, folded norms, no copies, fusion) save time, found by running them.

    A pattern is matmul:M[,N,K], conv:C,H,W,K,R[,nchw|nhwc|nchw8], attention:T[,D], reduction:M[,N[,AXIS]], transpose:M[,N],
    elementwise:N[,OPERATIONS], gather:ROWS,WIDTH,LOOKUPS, a file of Python loops over arrays (.py), or of recorded
    addresses (.npy).
    """
    from memfit.api.locality import is_pattern, locality, pattern_names
    from memfit.report.terminal_locality import draw_locality

    known = is_pattern(pattern)
    if not known and ":" not in pattern:
        names = ", ".join(pattern_names())
        raise NestError(repr(pattern), "it is neither a pattern nor a target", f"patterns are {names}; see --help")
    if not known and cache is not None:
        raise click.UsageError("--cache is for patterns; a model runs on this machine")
    with progress_line() as progress:
        report = locality(
            pattern, machine=machine, cache=cache, settings=settings, advise=not no_advice, prove=False if no_advice else prove,
            progress=progress,
        )  # fmt: skip
    if html is not None:
        from memfit.report.locality_page import locality_page

        write_atomically(html, locality_page(report))
    written = [html] if html is not None else []
    return Answer(report.to_json(), lambda console: draw_locality(console, report, written))
