"""The command line of benchmarks; see the package's docstring for what the parts are."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import benchmarks
from benchmarks import (
    blocks,
    codec_speed,
    commands,
    instances,
    machine,
    peers,
    result,
    tables,
    transform_speed,
)
from benchmarks import threads as scaling
from kvq_cli.codecs.transform import Transform

QUICK: Final = {"rounds": 2, "bytes": 1 << 26}


def codecs_part(options: argparse.Namespace) -> dict[str, Any]:
    chosen = instances.every() if options.every else instances.named()
    if options.codec:
        chosen = {name: each for name, each in chosen.items() if each.name in options.codec}
    rows = codec_speed.measure(chosen, options.rounds) if chosen else ()
    found: dict[str, Any] = {"rows": list(rows)}
    if not options.codec or Transform.name in options.codec:
        found["transform"] = list(transform_speed.measure(options.rounds))
    return found


def commands_part(options: argparse.Namespace) -> dict[str, Any]:
    found = []
    for geometry in commands.GEOMETRIES:
        with commands.capture(options.folder, geometry, options.bytes) as folder:
            measured = commands.measure(folder, options.rounds, slow=options.zstd_19)
            found.append({"bytes": options.bytes, **geometry, **measured})
    return {"captures": found}


def threads_part(options: argparse.Namespace) -> dict[str, Any]:
    found = []
    for geometry in commands.GEOMETRIES[:1]:
        with commands.capture(options.folder, geometry, options.bytes) as folder:
            rows = scaling.measure(folder, options.rounds)
            found.append({"bytes": options.bytes, **geometry, "rows": rows})
    return {"captures": found}


def peers_part(options: argparse.Namespace) -> dict[str, Any]:
    captures = [blocks.read(path) for path in options.capture or [blocks.SAMPLE]]
    with ExitStack() as stack:
        path = stack.enter_context(blocks.grown(128))
        captures.append(blocks.read(path, "grown, 8 heads of 128 channels"))
    measured = [peers.measure(each, options.rounds, options.module) for each in captures]
    return {"captures": measured}


PARTS: Final[dict[str, Callable[[argparse.Namespace], dict[str, Any]]]] = {
    "codecs": codecs_part,
    "commands": commands_part,
    "threads": threads_part,
    "peers": peers_part,
}


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=benchmarks.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("part", nargs="*", help=f"of {', '.join(PARTS)}; all without")
    found.add_argument("--rounds", type=int, default=7)
    found.add_argument("--bytes", type=int, default=commands.BYTES, help="of captures of commands")
    found.add_argument("--quick", action="store_true", help="2 rounds, 64 MiB: to see it run")
    found.add_argument("--every", action="store_true", help="codecs: every value of a parameter")
    found.add_argument("--codec", action="append", default=[], metavar="NAME")
    found.add_argument("--capture", action="append", type=Path, metavar="FILE", help="peers: real")
    found.add_argument("--module", action="append", default=[], help="peers: only these methods")
    found.add_argument("--zstd-19", action="store_true", help="commands: once; it takes minutes")
    found.add_argument("--folder", type=Path, help="on the disk to measure")
    found.add_argument("--result", nargs="?", type=Path, const=result.PATH, metavar="FILE",
                       help="write the parts into a file of results")  # fmt: skip
    found.add_argument("--show", type=Path, metavar="FILE", help="print a file of results")
    return found


def main() -> None:
    options = parser().parse_args()
    if options.show:
        tables.show(json.loads(options.show.read_text("utf-8")))
        return
    if unknown := set(options.part) - set(PARTS):
        raise SystemExit(f"benchmarks: no part {', '.join(unknown)}; only {', '.join(PARTS)}")
    machine.steady()
    machine.settle()
    if options.quick:
        vars(options).update(QUICK)
    for name, part in PARTS.items():
        if options.part and name not in options.part:
            continue
        made = machine.made(_command(sys.argv[1:]))
        found = {name: {"made": made, **part(options)}}
        tables.show(found)
        if options.result:
            result.merge(options.result, found)


def _command(words: list[str]) -> str:
    """As it was called, without folders: they are no part of the result."""
    return " ".join(["python -m benchmarks", *(Path(word).name for word in words)])


if __name__ == "__main__":
    main()
