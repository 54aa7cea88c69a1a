"""`memfit plan`: where every buffer lies, with a proof of how far from optimal."""

from __future__ import annotations

from typing import Any

import click

from memfit.cli.answer import Answer
from memfit.cli.options import bind_option, html_option, json_option, output_option, room_option, settings_option
from memfit.cli.progress import progress_line
from memfit.errors import CapacityError, MemfitError, UndecidedError
from memfit.files import write_atomically
from memfit.machine.devices import find_device
from memfit.planners.memories import parse_memories
from memfit.planners.plan_file import plan_text
from memfit.planners.problem import Memory
from memfit.planners.table import table_text
from memfit.report.plan_summary import PlanReport
from memfit.report.terminal_plan import draw_plan
from memfit.units import parse_bytes


def _size(context: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """Bytes; "none" sets aside the capacity in a table's name."""
    return value if value is None or value == "none" else parse_bytes(value)


def _memories(context: click.Context, param: click.Parameter, value: str | None) -> tuple[Memory, ...]:
    return () if value is None else parse_memories(value)


def _names(context: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = tuple(name for name in (part.strip() for part in value.split(",")) if name)
    if not names:
        raise click.BadParameter("it names no strategy")
    return names


@click.command("plan")
@click.argument("target")
@settings_option
@bind_option
@click.option("--capacity", metavar="SIZE", callback=_size, help="Bytes of the memory, or none.")
@room_option
@click.option("--memories", metavar="NAME:SIZE,...", callback=_memories, help="Several memories, the preferred first.")
@click.option(
    "--time-limit", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, metavar="SECONDS",
    help="CPU seconds for the searches.",
)  # fmt: skip
@click.option("--strategies", callback=_names, metavar="NAME,NAME", help="Run these only.")
@click.option("--alignment", type=click.IntRange(1), metavar="BYTES", help="Of every offset; 64 for programs.")
@click.option("--constants", is_flag=True, help="Also place parameters, buffers, inputs, optimizer state.")
@click.option("--source", type=click.Choice(["graph", "trace"]), help="Where a target's lifetimes come from.")
@click.option("--order", is_flag=True, help="First put a graph's ops in the order with the least peak.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of the exact search.")
@click.option("--offsets", is_flag=True, help="With --json: where every buffer lies.")
@html_option
@output_option("--png", text="Write the picture (needs matplotlib).")
@output_option("--out", text="Write the best plan: .json for a runtime, or .csv with offsets.")
@json_option
def command(
    target: str, settings: dict[str, Any], bound: dict[str, int], capacity: int | str | None,
    device: str | None, memories: tuple[Memory, ...], time_limit: float,
    strategies: tuple[str, ...] | None, alignment: int | None, constants: bool, source: str | None,
    order: bool, threads: int, offsets: bool, html: str | None, png: str | None, out: str | None, as_json: bool,
) -> Answer:  # fmt: skip
    """Where every buffer of TARGET lies when all lifetimes are known, and how far that is from optimal.

    TARGET is a table of lifetimes (.csv, MiniMalloc's columns), a saved trace (.npz), a graph or plan (.json), a
    model file (.onnx), or file.py:function.
    """
    if capacity is not None and memories:
        raise click.UsageError("--capacity is of one memory; with --memories write each size there")
    if device is not None:
        if capacity is not None or memories:
            raise click.UsageError("--device says how large the memory is, as --capacity and --memories do; give one")
        capacity = find_device(device).room
    if out is not None and not out.lower().endswith((".json", ".csv")):
        raise click.UsageError(f"--out {out!r} is neither a .json plan nor a .csv table")
    if capacity == "none":
        capacity, memories = None, (Memory("memory"),)
    if png is not None:
        from memfit.report.picture_frame import check_matplotlib  # before minutes of planning, not after

        check_matplotlib()
    from memfit.api.planning import plan  # here: it brings NumPy and the core, which --help need not wait for

    with progress_line() as progress:
        report = plan(
            target, settings=settings, capacity=None if capacity is None else int(capacity), memories=memories,
            time_limit=time_limit, strategies=strategies, alignment=alignment, constants=constants, source=source,
            threads=threads, must_fit=False, order=order, bound=bound, progress=progress,
        )  # fmt: skip
    written = _write(report, html, png, out)
    data = report.to_json(offsets)
    if report.unkept and report.capacity is not None:
        error: MemfitError = UndecidedError(report.capacity, report.best.peak, report.bound, report.seconds)
        if report.fits is False:
            error = CapacityError(report.capacity, report.bound, report.infeasible, report.target)
        data["error"] = {"kind": type(error).__name__, "message": str(error)}
    return Answer(data, lambda console: draw_plan(console, report, written), unkept=report.unkept)


def _write(report: PlanReport, html: str | None, png: str | None, out: str | None) -> list[str]:
    """Write what was asked for; a plan that breaks the capacity is not written for a runtime."""
    if html is not None:
        from memfit.report.plan_page import plan_page

        write_atomically(html, plan_page(report))
    if png is not None:
        from memfit.report.plan_picture import plan_picture

        write_atomically(png, plan_picture(report))
    if out is not None and report.unkept:
        out = None
    if out is not None:
        best, problem = report.best, report.problem
        text = table_text(problem, best) if out.lower().endswith(".csv") else plan_text(problem, best) + "\n"
        write_atomically(out, text)
    return [path for path in (html, png, out) if path is not None]
