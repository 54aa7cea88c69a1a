"""`memfit machine`: the memory hierarchy that programs meet here, measured and held against the system's word."""

from __future__ import annotations

from typing import Any

import click

from memfit.cli.answer import Answer
from memfit.cli.options import html_option, json_option, output_option
from memfit.cli.progress import progress_line
from memfit.files import write_atomically


@click.command("machine")
@click.argument("name", required=False)
@click.option("--no-measure", is_flag=True, help="Take the system's word: sizes and ways, no times.")
@click.option("--list", "listed", is_flag=True, help="Name the ready descriptions.")
@html_option
@output_option("--png", text="Draw latency over working sets (needs matplotlib).")
@json_option
def command(
    name: str | None, no_measure: bool, listed: bool, html: str | None, png: str | None, as_json: bool
) -> Answer:
    """Cache sizes, ways, latency and bandwidth, address translation and pages of this machine, measured in about 2 s.

    NAME is a ready description (--list) or a file that --json wrote; without it this machine is measured.
    """
    if png is not None or html is not None:
        from memfit.report.replay_picture import check_matplotlib  # before the measurement, not after

        check_matplotlib()
    from memfit.api.machines import measure_machine
    from memfit.machine.spec import ready_machines
    from memfit.report.terminal_machine import draw_machine, machine_page, machine_picture

    if listed:
        names = list(ready_machines())
        return Answer({"machines": names}, lambda console: console.print("\n".join(names)))
    with progress_line() as progress:
        machine = measure_machine(name, measure=not no_measure, progress=progress)
    if png is not None:
        write_atomically(png, machine_picture(machine))
    if html is not None:
        write_atomically(html, machine_page(machine))
    written = [path for path in (html, png) if path is not None]
    return Answer({**machine.to_json(), "devices": _devices()}, lambda console: draw_machine(console, machine, written))


def _devices() -> list[dict[str, Any]]:
    """The devices here that a program may run on; frameworks' own devices join this list."""
    from memfit.machine.devices import available_memory

    return [{"name": "cpu", "kind": "cpu", "memory": available_memory()}]
