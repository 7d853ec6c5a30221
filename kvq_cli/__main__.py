"""__main__: the command `kvq`. `--version` is answered before anything else is imported."""

from __future__ import annotations

import os
import sys

from kvq_cli import __version__


def main() -> None:
    if sys.argv[1:] in (["--version"], ["-V"]):
        print(f"kvq {__version__}")  # noqa: T201 - the answer
        return
    # Bytes never depend on it; without it BLAS starts a thread a core that kvq does not use.
    for library in ("OPENBLAS", "MKL", "OMP"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    from kvq_cli.cli.run import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
