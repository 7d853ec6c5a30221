"""run: the command line from arguments to exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import cache
from types import FrameType
from typing import Any, Final

import typer

from kvq_cli import __version__
from kvq_cli.cli import compress, decompress, inspect, profile, recover, stats, transform, verify
from kvq_cli.cli.loop import complain, exit_code, failure
from kvq_cli.errors import BROKEN_PIPE, INTERRUPTED, USAGE

# Typer carries its own Click; its base error is reached through what Typer exports.
ParserError: Final[Any] = typer.BadParameter.__mro__[2]

EPILOG: Final = """\b
Examples:
  kvq compress cache.safetensors --profile int8
  kvq verify cache.safetensors.kvq --against cache.safetensors

\b
Exit codes: 0 done; 1 an expectation does not hold; 2 usage; 3 damaged;
4 unsupported; 5 refused; 6 input/output; 7 limit; 70 a bug in kvq;
130 interrupted; 141 broken pipe. Treat an unknown code as a failure."""

COMMANDS: Final[Mapping[str, Callable[..., int]]] = {
    "compress": compress.compress,
    "decompress": decompress.decompress,
    "inspect": inspect.inspect,
    "verify": verify.verify,
    "stats": stats.stats,
    "recover": recover.recover,
    "calibrate": transform.calibrate,
}


def _version(asked: bool) -> None:
    if asked:
        print(f"kvq {__version__}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "-V", "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    del version


def run(arguments: list[str]) -> int:
    """Parse and do; whatever happens becomes one line and an exit code."""
    try:
        signal.signal(signal.SIGTERM, _terminated)
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Names that standard output has no letters for are escaped; standard error does so.
            sys.stdout.reconfigure(errors="backslashreplace")
        return _parsed(arguments)
    except ParserError as error:
        complain("E101", f"{_sentence(error.format_message())}; see kvq --help")
        return USAGE
    except (KeyboardInterrupt, typer.Abort):
        _leave_nothing()
        print("kvq: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output at exit, and would complain once more.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the last line before a traceback
        failure(error, None)
        return exit_code(error)


def _parsed(arguments: list[str]) -> int:
    """What the command returns, without Click's own ideas of broken pipes and interrupts."""
    if "_KVQ_COMPLETE" in os.environ:
        parser().main(arguments, prog_name="kvq")
    known = arguments and arguments[0] in (*COMMANDS, profile.NAME)
    command = parser(arguments[0] if known else None)
    try:
        with command.make_context("kvq", list(arguments)) as context:
            code = int(command.invoke(context) or 0)
    except typer.Exit as end:
        code = end.exit_code
    sys.stdout.flush()
    return code


@cache
def parser(only: str | None = None) -> Any:
    """The parser of all commands, or of one: Typer takes longer to make it than that to run."""
    app = typer.Typer(
        name="kvq",
        help="Compress, verify, inspect and restore dumps of transformer KV caches.",
        epilog=EPILOG,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, command in COMMANDS.items():
        if only in (None, name):
            app.command(name)(command)
    if only in (None, profile.NAME):
        app.add_typer(profile.app, name=profile.NAME)
    return typer.main.get_command(app)


def _sentence(message: str) -> str:
    """A parser's message as kvq writes them: one line, lower case, no full stop."""
    line = " ".join(message.split())
    return line[:1].lower() + line[1:].rstrip(".")


def _leave_nothing() -> None:
    """Remove what an interrupt between two lines has left."""
    from kvq_cli.steps.temporary import remove_all  # not at every start

    remove_all()


def _terminated(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends like an interrupt: temporary files go."""
    del number, frame
    raise KeyboardInterrupt
