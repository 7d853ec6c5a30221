"""__main__: the command `kvq`. `--version` is answered before anything else is imported."""

from __future__ import annotations

import errno
import gc
import os
import sys
from typing import NoReturn

from kvq_cli import __version__


def main() -> NoReturn:
    """Answer, and end at once: freeing what is over anyway takes a tenth of a short command."""
    code = 0
    try:
        code = answer()
        sys.stdout.flush()
        sys.stderr.flush()
    except KeyboardInterrupt:  # before anybody listened, or when all was said
        os._exit(130)
    except OSError:
        if not code:  # nobody has told of it yet
            sys.exit(code)
    os._exit(code)


def answer() -> int:
    """The exit code of what the command line asks for."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        print(f"kvq {__version__}")  # noqa: T201 - the answer
        return 0
    # Bytes never depend on it; without it BLAS starts a thread a core that kvq does not use.
    for library in ("OPENBLAS", "MKL", "OMP"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    _hold_streams()
    gc.disable()  # what is imported stays
    try:
        from kvq_cli.cli.run import run
    except KeyboardInterrupt:  # before run could say it in one line
        return 130
    gc.enable()
    return run(sys.argv[1:])


def _hold_streams() -> None:
    """A stream that the caller closed must not lend its number, or its place, to a file.

    Read-only, so that data for a closed standard output is an error and not lost.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError as error:
            if error.errno == errno.EBADF:
                os.open(os.devnull, os.O_RDONLY)
    # print() would take a missing standard error for standard output.
    nowhere = open(os.devnull, "w") if None in (sys.stdout, sys.stderr) else None  # noqa: SIM115
    sys.stdout = sys.stdout or nowhere
    sys.stderr = sys.stderr or nowhere


if __name__ == "__main__":
    main()
