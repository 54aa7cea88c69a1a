"""`memfit run`: inference of a model whose weights exceed the memory, from its files, within a byte budget."""

from __future__ import annotations

from typing import Any

import click

from memfit.cli.answer import Answer
from memfit.cli.options import json_option, settings_option
from memfit.cli.pooled_script import AlsoPooled
from memfit.cli.progress import progress_line
from memfit.units import parse_bytes


def _size(context: click.Context, param: click.Parameter, value: str | None) -> int | None:
    return None if value is None else parse_bytes(value)


@click.command("run", cls=AlsoPooled)
@click.argument("model")
@click.option("--budget", required=True, metavar="SIZE", callback=_size,
              help="Bytes for weights and everything else that lives while it runs.")  # fmt: skip
@click.option("--weights", metavar="PATH", help="A .safetensors file, an index or a folder; default: MODEL's own.")
@click.option("--prompt", metavar="TEXT", help="Text for a language model with a tokenizer.")
@click.option("--tokens", default=128, show_default=True, type=click.IntRange(min=1), metavar="N",
              help="Without a prompt: this many token ids, drawn with seed 0.")  # fmt: skip
@click.option("--new-tokens", default=0, show_default=True, type=click.IntRange(min=0), metavar="N",
              help="Tokens to generate, greedily.")  # fmt: skip
@click.option("--passes", type=click.IntRange(min=0), metavar="N",
              help="Passes over the prompt or the example inputs.  [default: 2; 0 with --new-tokens]")  # fmt: skip
@click.option("--activations", metavar="SIZE", callback=_size, help="Bytes to leave for everything but weights.")
@click.option("--keep-cache", is_flag=True, help="Leave what is read in the page cache.")
@click.option("--allow-extra", is_flag=True, help="Accept files with tensors that the model has no place for.")
@settings_option
@json_option
def command(
    model: str, budget: int, weights: str | None, prompt: str | None, tokens: int, new_tokens: int, passes: int | None,
    activations: int | None, keep_cache: bool, allow_extra: bool, settings: dict[str, Any], as_json: bool,
) -> Answer:  # fmt: skip
    """Run MODEL within --budget bytes, however large its weights are; the result is bit for bit that of a model in memory.

    MODEL is a folder with config.json and safetensors files (transformers), or file.py:function with --weights.

    memfit run --pool SCRIPT [ARGUMENTS] runs a script as it is, its arrays and CPU tensors from memfit's pool.
    """
    from memfit.api.running import run

    with progress_line() as progress:
        report = run(
            model, weights, budget=budget, prompt=prompt, tokens=tokens, new_tokens=new_tokens,
            passes=(0 if new_tokens else 2) if passes is None else passes, activations=activations, keep_cache=keep_cache,
            strict=not allow_extra, settings=settings, say=(lambda text: progress(text, None, None)) if progress else _quiet,
        )  # fmt: skip
    return Answer({"target": report.name, **report.data}, lambda console: _draw(console, report))


def _quiet(text: str) -> None:
    """No terminal watches."""


def _draw(console: Any, report: Any) -> None:
    from memfit.report.terminal_run import draw_run

    draw_run(console, report.name, report.data)
