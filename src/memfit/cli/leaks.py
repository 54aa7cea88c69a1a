"""`memfit leaks`: what grows, who holds it, which line made it."""

from __future__ import annotations

import click

from memfit.cli.answer import Answer
from memfit.cli.options import check_option, html_option, json_option
from memfit.cli.scripts import LEAKS_VALUE_OPTIONS, script_position
from memfit.files import write_atomically
from memfit.report.leaks_page import leaks_page
from memfit.report.terminal_leaks import draw_leaks


class LeaksCommand(click.Command):
    """A command whose arguments after the name of a script belong to the script."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Put ``--`` before the script's own arguments, so that none of them is taken for an option of memfit."""
        position = script_position(args, LEAKS_VALUE_OPTIONS)
        if position is not None:
            args = [*args[:position], "--", *args[position:]]
        return super().parse_args(context, args)


@click.command("leaks", cls=LeaksCommand)
@click.argument("script", required=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--pid", type=click.IntRange(1), metavar="N", help="Ask a running service that called memfit.watch.serve()."
)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
              help="Ask the script to end after so long, and judge then.")  # fmt: skip
@check_option
@html_option
@json_option
def command(
    script: str | None, arguments: tuple[str, ...], pid: int | None, timeout: float | None, check: bool, html: str | None,
    as_json: bool,
) -> Answer:  # fmt: skip
    """Run SCRIPT with its ARGUMENTS and say whether its memory leaks: what grows, who holds it, which line made it.

    Options of memfit go before the script. What the script prints goes to standard error. With --pid a running
    service is asked instead.
    """
    if (script is None) == (pid is None):
        raise click.UsageError("name a script.py, or a running service with --pid, one of the two")
    if script is not None and not script.endswith(".py"):
        raise click.UsageError(f"{script!r} is no script.py")
    if pid is not None:
        from memfit.api.watch_service import ask

        report = ask(pid)
    else:
        from memfit.api.leaks import leaks

        report = leaks(str(script), arguments, timeout=timeout)
    written = []
    if html is not None:
        write_atomically(html, leaks_page(report))
        written.append(html)
    return Answer(
        report.to_json(), lambda console: draw_leaks(console, report, written), no=check and bool(report.leaking)
    )
