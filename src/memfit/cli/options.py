"""The options that several commands share, with the same words and the same checks everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from memfit.files import check_writable
from memfit.frameworks.target import parse_settings
from memfit.units import parse_bytes

F = TypeVar("F", bound=Callable[..., Any])


def _size(context: click.Context, param: click.Parameter, value: str | None) -> int | None:
    return None if value is None else parse_bytes(value)


def _budget(context: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """Bytes, or the text of a percentage."""
    if value is None:
        return None
    text = value.strip()
    if not text.endswith("%"):
        return parse_bytes(text)
    try:
        share = float(text[:-1])
    except ValueError:
        share = 0.0
    if not 0 < share <= 100:
        raise click.BadParameter(f"{text!r} is no share of the unmodified peak; write more than 0% and at most 100%")
    return text


def _settings(context: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, Any]:
    return parse_settings(value)


def _output(context: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        check_writable(value)
    return value


def output_option(*names: str, text: str) -> Callable[[F], F]:
    """An option that names a file to write; refused at once where it could not be written later."""
    return click.option(*names, metavar="FILE", callback=_output, help=text)


settings_option = click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", callback=_settings,
    help="Keyword argument for the target's function; may be repeated.",
)  # fmt: skip


def _bound(context: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, int]:
    found: dict[str, int] = {}
    for pair in value:
        name, equals, text = pair.partition("=")
        if not equals or not name or not text.strip().isdecimal():
            raise click.BadParameter(f"{pair!r} binds nothing; write NAME=NUMBER, such as batch=8")
        found[name.strip()] = int(text)
    return found


bind_option = click.option(
    "--bind", "bound", multiple=True, metavar="NAME=NUMBER", callback=_bound,
    help="A number for an open dimension of a model file; may be repeated.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
device_option = click.option(
    "--device",
    default="cpu",
    show_default=True,
    metavar="NAME",
    help="This cpu, or a GPU by name (h100-80g), here or not.",
)
room_option = click.option(
    "--device",
    metavar="NAME",
    help="Hold it against the memory of this cpu, or of a GPU by name (h100-80g), here or not.",
)
budget_option = click.option("--budget", metavar="SIZE", callback=_size, help="Bytes it should fit in, such as 2GiB.")
fit_budget_option = click.option(
    "--budget",
    metavar="SIZE",
    callback=_budget,
    help="Peak to keep: 2GiB, or 33% of the unmodified peak; default: the memory of --device.",
)
check_option = click.option("--check", is_flag=True, help="Exit 1 when the answer is no.")
html_option = output_option("--html", text="Write one self-contained page.")
perfetto_option = output_option("--perfetto", text="Write a trace for ui.perfetto.dev.")
trace_option = output_option("--save-trace", "save_trace", text="Write every event (.npz).")


def _swept(context: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    for pair in value:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip().isidentifier() or not text.strip():
            raise click.BadParameter(f"{pair!r} sweeps nothing; write NAME=1..64, NAME=0..64..8 or NAME=512,1024")
        found[name.strip()] = tuple(v for part in text.split(",") for v in _values(part.strip(), pair))
    return found


def _values(text: str, pair: str) -> Any:
    if ".." not in text:
        return parse_settings([f"value={text}"]).values()
    ends = text.split("..")
    if len(ends) not in (2, 3) or not all(end.strip().isdecimal() for end in ends):
        raise click.BadParameter(f"{pair!r}: a range is FIRST..LAST or FIRST..LAST..STEP, in whole numbers")
    first, last, step = (*map(int, ends), 1)[:3]
    if step < 1 or last < first:
        raise click.BadParameter(
            f"{pair!r}: an empty range; write FIRST..LAST with FIRST <= LAST and a step of 1 or more"
        )
    return range(first, last + 1, step)


sweep_option = click.option(
    "--sweep", "swept", multiple=True, metavar="NAME=VALUES", callback=_swept,
    help="A table over NAME=1..64, 8..64..8 or 512,1024; several give every combination.",
)  # fmt: skip
