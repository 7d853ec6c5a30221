"""targets: where each input's output goes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from kvq_cli.cli.options import file_name
from kvq_cli.errors import UsageError


def output_for(
    names: list[str], output: str | None, default: Callable[[Path], Path]
) -> Callable[[str], Path]:
    """The target of an input: beside it, in the folder -o names, or the one file -o names."""
    if output is None:
        return lambda name: default(Path(name))
    folder = output.endswith(os.sep) or (output != "-" and Path(output).is_dir())
    if folder:
        if "-" in names:
            raise UsageError("E101", f"-o {output} is a folder; standard input needs a file name")
        if len({Path(name).name for name in names}) < len(names):
            raise UsageError("E101", "two inputs have the same name; outputs would collide")
        return lambda name: Path(output) / default(Path(name)).name
    if len(names) > 1:
        raise UsageError("E101", f"-o {output} is one file, there are {len(names)} inputs")
    target = Path(output if output == "-" else file_name(output))
    return lambda name: target
