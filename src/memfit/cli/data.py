"""`memfit data`: mapped data sets: make one, look into it, its statistics, how fast a loader over it is."""

from __future__ import annotations

import time
from typing import Any

import click

from memfit.cli.answer import Answer
from memfit.cli.options import json_option, output_option
from memfit.cli.progress import progress_line
from memfit.report.terminal_data import draw_bench, draw_contents, draw_statistics
from memfit.units import format_bytes, format_seconds, parse_bytes


def _size(context: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    parts = value.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and 0 < int(part) <= 65536 for part in parts):
        raise click.BadParameter(f"{value!r} is no size of images; write 224 or 224x320 (height x width)")
    return int(parts[0]), int(parts[-1])


@click.group("data")
def command() -> None:
    """Data larger than memory: one mapped data set of any source, its statistics, and loaders over it."""


@command.command("convert")
@click.argument("source")
@click.argument("target")
@click.option(
    "--size", metavar="HxW", callback=_size, help="Bring images to this size (scaled to cover, cut at the centre)."
)
@click.option("--channels", type=click.Choice(["last", "first"]), default="last", show_default=True, help="Of images.")
@click.option("--encoded", is_flag=True, help="Keep images as the bytes of their files.")
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read, and say which.")
@click.option("--stack", default="", metavar="NAME", help="All numbers of a table as one float32 column NAME.")
@click.option("--keep", multiple=True, metavar="COLUMN", help="A column that --stack leaves alone; may be repeated.")
@click.option(
    "--dtype",
    type=click.Choice(["uint8", "uint16", "uint32", "int32", "int64"]),
    default="uint16",
    show_default=True,
    help="Type of the tokens in a .bin file.",
)
@click.option(
    "--tokenizer", default="", metavar="FILE", help="A tokenizer.json for .txt; without it a byte is a token."
)
@click.option("--force", is_flag=True, help="Replace a data set that is there, in one step at the end.")
@json_option
def convert_command(
    source: str, target: str, size: tuple[int, int] | None, channels: str, encoded: bool, skip_bad: bool, stack: str,
    keep: tuple[str, ...], dtype: str, tokenizer: str, force: bool, as_json: bool,
) -> Answer:  # fmt: skip
    """Make the data set TARGET (a folder) of SOURCE: .npy, .npz, .csv, .tsv, .parquet, .arrow, .tar, .bin or .txt of
    tokens, or a folder of images, tables, tar files or a saved Hugging Face data set.

    An interrupted convert goes on when the same command is given again.
    """
    from memfit.data.conversion import convert
    from memfit.data.sources import Choices

    choices = Choices(size, channels, skip_bad, stack, keep, dtype, tokenizer, encoded)
    notes: list[str] = []
    with progress_line() as progress:
        data = convert(source, target, choices, overwrite=force, progress=progress, notes=notes)
    answer = _contents(data)
    answer["notes"] = [*notes[:5], *([f"and {len(notes) - 5} more were left out"] if len(notes) > 5 else [])]
    return Answer(answer, lambda console: draw_contents(console, answer))


@command.command("inspect")
@click.argument("folder")
@click.option("--verify", is_flag=True, help="Compare every byte with its checksum.")
@output_option("--png", text="Write a picture of samples of the image column.")
@json_option
def inspect_command(folder: str, verify: bool, png: str | None, as_json: bool) -> Answer:
    """What the data set FOLDER holds, and how much of it lies in the page cache."""
    from memfit.data.dataset import Dataset

    data = Dataset(folder)
    answer = _contents(data)
    if verify:
        with progress_line() as progress:
            answer["verified_bytes"] = data.verify(progress=progress)
        answer["notes"] = [f"all {answer['verified_bytes']} bytes match their checksums"]
    if png is not None:
        from memfit.data.samples import samples_picture
        from memfit.files import write_atomically

        write_atomically(png, samples_picture(data))
        answer["notes"] = [*answer.get("notes", []), f"wrote {png}"]
    return Answer(answer, lambda console: draw_contents(console, answer))


@command.command("stats")
@click.argument("folder")
@click.option("--column", "columns", multiple=True, metavar="NAME", help="Only this column; may be repeated.")
@click.option("--no-quantiles", is_flag=True, help="Moments only: several times faster.")
@click.option("--exact", is_flag=True, help="Exact quantiles of float32 columns, by a second read.")
@json_option
def stats_command(folder: str, columns: tuple[str, ...], no_quantiles: bool, exact: bool, as_json: bool) -> Answer:
    """Count, mean, standard deviation, least, greatest and quantiles of every channel of the data set FOLDER."""
    from memfit.data.dataset import Dataset
    from memfit.data.figures import statistics

    data = Dataset(folder)
    began = time.perf_counter()
    with progress_line() as progress:
        figures = statistics(data, columns or None, not no_quantiles, exact, progress)
    answer: dict[str, Any] = {
        "path": folder, "rows": len(data), "columns": {name: one.to_json() for name, one in figures.items()},
        "seconds": time.perf_counter() - began,
    }  # fmt: skip
    return Answer(answer, lambda console: draw_statistics(console, answer))


def _contents(data: Any) -> dict[str, Any]:
    from memfit.data.page_cache import resident_bytes

    columns = []
    for column in data.schema.columns:
        file = data.file(column.name)
        columns.append({**column.to_json(), "bytes": file.value_bytes, "resident": resident_bytes(file)})
    return {
        "path": str(data.folder), "rows": len(data), "columns": columns, "bytes": sum(c["bytes"] for c in columns),
        "resident": sum(c["resident"] for c in columns), "source": data.schema.source,
    }  # fmt: skip


@command.command("bench")
@click.argument("folder")
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True, help="Rows of a batch.")
@click.option("--as", "dtype", type=click.Choice(["stored", "float32", "bfloat16", "float16"]), default="float32",
              show_default=True, help="Normalise to this type; stored: only gather.")  # fmt: skip
@click.option("--no-shuffle", is_flag=True, help="In the order of the file.")
@click.option("--threads", type=click.IntRange(0), default=1, show_default=True, help="That make batches.")
@click.option("--memory-budget", metavar="SIZE", help="Bytes for buffers and page cache, such as 512MiB.")
@click.option("--cold", is_flag=True, help="Drop the data set from the page cache before each epoch.")
@json_option
def bench_command(
    folder: str,
    batch: int,
    dtype: str,
    no_shuffle: bool,
    threads: int,
    memory_budget: str | None,
    cold: bool,
    as_json: bool,
) -> Answer:
    """A loader over the data set FOLDER against this machine's own memory and disk: how fast, and what binds."""
    from memfit.data.benching import bench
    from memfit.data.dataset import Dataset
    from memfit.data.loader import Loader
    from memfit.data.transforms import cast, channels, normalize

    data = Dataset(folder)
    steps: dict[str, Any] = {}
    for column in data.schema.columns:
        if (
            dtype != "stored"
            and not column.ragged
            and column.meaning not in ("label", "tokens")
            and column.dtype[0] in "uf"
        ):
            steps[column.name] = [normalize(), *([channels("first")] if column.channels else []), cast(dtype)]
    with Loader(data, batch, steps, shuffle=not no_shuffle, threads=threads, memory_budget=memory_budget) as loader:
        found = bench(loader, cold=cold)
    answer: dict[str, Any] = {"path": folder, **found.to_json(), "memory": loader.memory}
    answer["verdict"] = (
        f"{found.samples_per_second:,.0f} rows/s, {100 * found.share:.0f} % of the limit; it is bound by {found.binds}"
    )
    disk = found.disk_bytes_per_second
    answer["figures"] = [
        ("rows per CPU second", f"{found.samples_per_cpu_second:,.0f}"),
        ("read and written", f"{format_bytes(found.bytes_per_second)}/s"),
        ("limit of this machine", f"{format_bytes(found.limit_bytes_per_second)}/s"),
        ("memory traffic of a copy", f"{format_bytes(found.memory_bytes_per_second)}/s"),
        ("random direct reads", "not needed" if disk is None else f"{format_bytes(disk)}/s"),
        ("access", found.access),
        ("shuffle against a full one", f"{100 * found.randomness:.1f} %"),
        ("buffers (projected)", format_bytes(loader.memory["ring"] + loader.memory["staging"])),
        ("peak resident (measured)", format_bytes(found.peak_resident)),
    ]  # fmt: skip
    return Answer(answer, lambda console: draw_bench(console, answer))


@command.command("tune")
@click.argument("target")
@click.option("--cap", default="1GiB", show_default=True, metavar="SIZE", help="Freed memory that may be kept.")
@json_option
def tune_command(target: str, cap: str, as_json: bool) -> Answer:
    """What a stock loader gains from kept memory: TARGET is file.py:function that returns a DataLoader, or any iterable."""
    from memfit.data.tuning import measure
    from memfit.frameworks.target import load_function

    function = load_function(target)
    workers = int(getattr(function(), "num_workers", 0) or 0)
    gain = measure(function, cap, workers)
    helps = gain.factor >= 1.1
    answer: dict[str, Any] = {
        "target": target, "factor": gain.factor, "before_seconds": gain.before, "after_seconds": gain.after,
        "price_bytes": gain.price, "cap": parse_bytes(cap), "workers": workers, "helps": helps,
    }  # fmt: skip
    answer["verdict"] = (
        f"{gain.factor:.1f} times as fast for {format_bytes(gain.price)} more private memory: memfit.data.tune({cap!r})"
        if helps else "it does not help here"
    )  # fmt: skip
    answer["figures"] = [
        ("an epoch as it is", format_seconds(gain.before)), ("an epoch tuned", format_seconds(gain.after)),
        ("price (measured)", format_bytes(gain.price)), ("cap", format_bytes(parse_bytes(cap))),
    ]  # fmt: skip
    if workers:
        answer["notes"] = ["batches of worker processes come through shared memory, which this does not change"]
    return Answer(answer, lambda console: draw_bench(console, answer))
