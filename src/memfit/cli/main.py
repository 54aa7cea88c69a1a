"""The command `memfit`: reads the arguments, prints the answer, and maps what happened to an exit code.

    0    done
    1    the answer is no (does not fit) and the user asked with --check
    2    wrong use, bad input, a budget that cannot be kept, or a fault of memfit's own
    130  interrupted

With --json exactly one object goes to standard output, also for an error: ``{"error": {...}}``; everything else, the
user's own prints included, goes to standard error. Commands are imported on use, so that `memfit --help` is quick.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console

from memfit.cli.answer import Answer, plain, reserved_output
from memfit.cli.failures import Failure, explain
from memfit.cli.scripts import wants_json

DONE, NO, REFUSED, INTERRUPTED = 0, 1, 2, 130

COMMANDS = {
    "predict": "Where every byte of a step goes, before it runs.",
    "profile": "The same, measured while it runs; --compare holds the two together.",
    "fit": "Rewrite a step so that it keeps a byte budget, and verify it by running.",
    "optimize": "A smaller model file: fewer operations, or fewer bits under a budget; checked by running.",
    "plan": "Where every buffer lies when the future is known, with a proof of how far from optimal.",
    "replay": "What other allocators would reserve for a recorded trace; --advise names the best settings.",
    "layouts": "The same memory paged, segmented, planned and cached: what each way loses.",
    "paging": "Which replacement policy misses least when only some pages fit in memory.",
    "run": "Run a model larger than the memory within a byte budget, or a script from the pool (--pool).",
    "lint": "What autograd keeps for nothing, with the bytes at stake, the line and the fix.",
    "leaks": "Does memory grow from step to step: what, who holds it, which line made it, and the fix.",
    "data": "Data sets larger than memory: make one of any source, its statistics, loaders over it.",
    "locality": "Where an access pattern misses the caches, why, and a better order, proved by timing.",
    "machine": "The memory hierarchy here: sizes, ways, latency, bandwidth, measured and cross-checked.",
    "calibrate": "Measure on this machine what operations need inside.",
}


class LazyGroup(click.Group):
    """A group whose commands are modules of this package, imported when one is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        """All commands, in the order in which people use them."""
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command, imported now; None where there is none of that name."""
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"memfit.cli.{name}").command
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="memfit", message="memfit %(version)s")
def memfit() -> None:
    """Show where every byte of an AI program goes, and fit the program into a byte budget, with proof.

    A target is file.py:function or package.module:function; the function returns memfit.Step(model, inputs, loss,
    optimizer), or (model, inputs, optimizer).
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code, raises nothing."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    as_json = wants_json(arguments)
    previous = _terminate_like_interrupt()
    try:
        with reserved_output(as_json) as output:
            try:
                answer = memfit.main(args=arguments, prog_name="memfit", standalone_mode=False)
                if isinstance(answer, Answer):
                    _print(answer, as_json, output)
                    return _code(answer)
                return int(answer or DONE)
            except (KeyboardInterrupt, click.Abort):
                print("memfit: interrupted; no file was left half written", file=sys.stderr)
                if as_json:
                    _print_object({"error": {"kind": "Interrupted", "message": "interrupted"}}, output)
                return INTERRUPTED
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return DONE
            except BaseException as error:
                if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
                    return DONE  # the reader of the answer went away, as `head` does; the console ends so
                failure = explain(error, arguments)
                _print_failure(failure, as_json, output)
                return REFUSED
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def _code(answer: Answer) -> int:
    if answer.unkept:
        return REFUSED
    return NO if answer.no else DONE


def _print(answer: Answer, as_json: bool, output: Any) -> None:
    if as_json:
        _print_object(answer.data, output)
    else:
        try:
            answer.draw(Console(file=output, highlight=False))
        except SystemExit as error:  # what rich does where the reader is gone, as under `| head`
            raise BrokenPipeError from error
    output.flush()


def _print_object(data: dict[str, Any], output: Any) -> None:
    output.write(json.dumps(plain(data), ensure_ascii=False) + "\n")
    output.flush()


def _print_failure(failure: Failure, as_json: bool, output: Any) -> None:
    print(f"memfit: {failure.message}", file=sys.stderr)
    if as_json:
        error = {"kind": failure.kind, "message": failure.message, **failure.fields}
        _print_object({**failure.answer, "error": error}, output)


def _terminate_like_interrupt() -> Any:
    """Let a polite kill end as an interruption does, temporary files removed. None where that is not ours to set."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    try:
        return signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread
        return None


if __name__ == "__main__":
    sys.exit(main())
