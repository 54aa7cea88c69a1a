"""`memfit run --pool script.py [arguments]`: a script as it is, its arrays and CPU tensors from memfit's pool."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import click

from memfit.cli.answer import Answer
from memfit.cli.options import json_option
from memfit.cli.scripts import script_position
from memfit.errors import TargetError


class AlsoPooled(click.Command):
    """A command that hands over to the pool's where its arguments begin with --pool."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the command that the arguments are for."""
        position = script_position(args)
        own = args if position is None else args[:position]
        if "--pool" in own:
            return pooled_script.make_context(info_name, args, parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


class _ScriptLast(click.Command):
    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        position = script_position(args)
        if position is not None:
            args = [*args[:position], "--", *args[position:]]
        return super().parse_args(context, args)


@click.command("run", cls=_ScriptLast)
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--pool", is_flag=True, required=True, help="Arrays and CPU tensors come from memfit's pool.")
@json_option
def pooled_script(script: str, arguments: tuple[str, ...], pool: bool, as_json: bool) -> Answer:
    """Run SCRIPT with its ARGUMENTS; options of memfit go before the script. The exit code is the script's."""
    if not Path(script).is_file():
        raise TargetError(script, "there is no such file", "name a Python script")
    from memfit.api.pooling import pool as cpu_pool  # here: it brings NumPy, which --help need not wait for

    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).resolve().parent))
    cpu_pool.install()
    code: object = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        code = ended.code
    statistics = cpu_pool.statistics()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    exit_code = code if isinstance(code, int) else int(code is not None)
    if exit_code:
        print(f"memfit: {statistics}", file=sys.stderr)
        raise click.exceptions.Exit(exit_code)
    return Answer(statistics.to_json(), lambda console: print(f"memfit: {statistics}", file=sys.stderr))
