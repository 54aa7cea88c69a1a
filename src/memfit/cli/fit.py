"""`memfit fit`: make it fit, and prove it."""

from __future__ import annotations

from typing import Any

import click

from memfit.cli.answer import Answer
from memfit.cli.options import fit_budget_option, html_option, json_option, output_option, room_option, settings_option
from memfit.cli.progress import progress_line
from memfit.files import write_atomically
from memfit.machine.devices import find_device
from memfit.report.html import fit_page
from memfit.report.terminal_fit import draw_fit


def _levers(context: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    return tuple(name for name in (part.strip() for part in value.split(",")) if name)


@click.command("fit")
@click.argument("target")
@settings_option
@fit_budget_option
@room_option
@output_option("--recipe", text="Where to write the recipe.")
@click.option("--allow-reassociation", is_flag=True, help="Also levers that sum in another order.")
@click.option("--allow-inexact", is_flag=True, help="Also levers that change results; the error is stated.")
@click.option("--levers", callback=_levers, metavar="NAME,NAME", help="Use these levers only.")
@click.option(
    "--no-verify", "verify", is_flag=True, flag_value=False, default=True, help="Plan only, run nothing twice."
)
@click.option("--steps", type=click.IntRange(1), default=3, show_default=True, help="Steps that the verification runs.")
@html_option
@json_option
def command(
    target: str, settings: dict[str, Any], budget: int | str | None, device: str | None, recipe: str | None,
    allow_reassociation: bool, allow_inexact: bool, levers: tuple[str, ...] | None, verify: bool, steps: int,
    html: str | None, as_json: bool,
) -> Answer:  # fmt: skip
    """Rewrite TARGET's step so that its peak keeps a budget, write the recipe, and verify it by running both.

    By default every lever is bit-exact: the same loss, gradients, buffers and random state, to the last bit.
    """
    place = None if device is None else find_device(device)
    if budget is None:
        if place is None:
            raise click.UsageError("Missing option '--budget' (or '--device', whose memory is to be kept)")
        budget = place.room
    from memfit.api.fitted import fit_target  # here: it brings the framework, which --help must not wait for

    with progress_line() as progress:
        report = fit_target(
            target, budget, settings=settings, allow_reassociation=allow_reassociation, allow_inexact=allow_inexact,
            levers=levers, verify=verify, recipe=recipe, steps=steps, progress=progress,
        )  # fmt: skip
    if html is not None:
        write_atomically(html, fit_page(report))
    written = [html] if html is not None else []
    data = report.to_json() | ({} if place is None else {"device": place.name})
    return Answer(data, lambda console: draw_fit(console, report, written), unkept=not report.feasible)
