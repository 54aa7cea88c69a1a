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
@click.option("--frameworks", is_flag=True, help="Also the devices that each installed framework sees; seconds.")
@html_option
@output_option("--png", text="Draw latency over working sets (needs matplotlib).")
@json_option
def command(
    name: str | None, no_measure: bool, listed: bool, frameworks: bool, html: str | None, png: str | None, as_json: bool
) -> Answer:
    """Cache sizes, ways, latency and bandwidth, address translation and pages of this machine, measured in about 2 s.

    NAME is a ready description (--list) or a file that --json wrote; without it this machine is measured.
    """
    if png is not None or html is not None:
        from memfit.report.picture_frame import check_matplotlib  # before the measurement, not after

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
    devices = _devices(frameworks)

    def draw(console: Any) -> None:
        draw_machine(console, machine, written)
        if frameworks:
            console.print("\nDevices, as each installed framework sees them")
            for row in devices[1:]:
                console.print(
                    f"  {row['framework']:<12} {row['name']:<24} {_bytes_of(row)}", markup=False, soft_wrap=True
                )

    return Answer({**machine.to_json(), "devices": devices}, draw)


def _devices(frameworks: bool) -> list[dict[str, Any]]:
    """The devices here that a program may run on: the CPU, and those of frameworks where asked for."""
    import os

    from memfit.machine.devices import available_memory

    free, whole = available_memory(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    rows: list[dict[str, Any]] = [{"name": "cpu", "kind": "cpu", "memory": free}]
    if frameworks:
        from memfit.frameworks.devices import framework_devices

        rows += framework_devices(free, whole)
    return rows


def _bytes_of(row: dict[str, Any]) -> str:
    from memfit.units import format_bytes

    if "error" in row:
        return str(row["error"])
    names = [(key, word) for key, word in (("memory", "in all"), ("free", "free"), ("used", "in use")) if key in row]
    return ", ".join(f"{format_bytes(row[key])} {word}" for key, word in names)
