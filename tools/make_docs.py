"""make_docs: writes the parts of the documentation that follow from the code or are measured.

    python tools/make_docs.py            write them
    python tools/make_docs.py --check    compare, write nothing; exit 1 on a difference

Between `<!-- make_docs: NAME -->` and `<!-- /make_docs -->` a page holds what block NAME makes.
In README.md the output below every `$ ` line of a ```console block is what the command prints
in a copy of sample_data/. Sizes follow from the zstd library and help texts from Typer: the
pages name the versions they were made with, and under others numbers, or help, differ freely.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import zstandard
from blake3 import blake3

import bench_docs
import e2e_docs
import fuzz_docs
import mutation_docs
import transform_docs
import trust_docs
from kvq_cli.codecs import Codec
from kvq_cli.codecs.fib_quant import FibQuant
from kvq_cli.codecs.registry import codec_from_json, codec_to_json, names
from kvq_cli.contract.compat.vector_code import Quantizer
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.digest import is_text
from kvq_cli.errors import MEANINGS
from kvq_cli.numerics.scratch import Tables
from kvq_cli.pipeline import compress, stats
from kvq_cli.profile import Profile, Rule, builtin_names, load_profile
from kvq_cli.profile.compat import fib_quant
from kvq_cli.steps.bound import needs_transform

ROOT: Final = Path(__file__).parents[1]
SAMPLES: Final = ROOT / "sample_data"
CAPTURE: Final = SAMPLES / "smollm2-sample-4x3x96x64-f16.safetensors"
QUERIES: Final = CAPTURE.with_suffix(".query.safetensors")
PAGES: Final = (
    "README.md",
    "sample_data/README.md",
    "docs/benchmarks.md",
    "docs/cli.md",
    "docs/e2e.md",
    "docs/errors.md",
    "docs/transform.md",
    "docs/trust.md",
)
BLOCK: Final = re.compile(r"(<!-- make_docs: (\S+) -->\n).*?(<!-- /make_docs -->)", re.DOTALL)
CONSOLE: Final = re.compile(r"(```console\n)(.*?)(```)", re.DOTALL)
NUMBER: Final = re.compile(r"\d+(\.\d+)?(e-\d+)?")
ZSTD: Final = ".".join(map(str, zstandard.ZSTD_VERSION))
TYPER: Final = version("typer")
EXITS: Final[Mapping[int, str]] = {
    0: "done; every check held",
    1: "the file is intact, an expectation does not hold: profile, shape, identity, root, size, "
    "capture",
    2: "wrong usage",
    3: "damaged, truncated, or not what it claims to be",
    4: "unsupported: version, feature, codec, dtype, layout",
    5: "refused: the target exists, binary data to a terminal, the output is the input",
    6: "input or output failed: not found, permission, no space",
    7: "a limit was exceeded",
    70: "a bug in kvq",
    130: "interrupted",
    141: "broken pipe",
}


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def measured(profile: Profile) -> list[str]:
    """Ratio, bits per element, relative MSE of keys and values and what it does to attention.

    All from a real container, with the model's own queries. What a codec or profile makes with a
    calibration depends on that.
    """
    if needs_transform(profile):
        return ["by its calibration", "", "", "", ""]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "sample.kvq"
        compress(CAPTURE, target, profiles=[profile])
        report = stats(target, against=CAPTURE, queries=QUERIES)
    whole = {row["role"]: row["relative_mse"] for row in report.errors if row["layer"] is None}
    errors = [f"{whole[role]:.1e}" if whole[role] else "exact" for role in ("key", "value")]
    variation = report.attention[-1]["attention_tv"]
    drift = f"{variation:.4f}" if variation else "exact"
    return [f"{report.ratio:.3f}", f"{report.bits_per_element:.2f}", *errors, drift]


COLUMNS: Final = [
    "ratio vs f16", "bits/element", "keys, relative MSE", "values, relative MSE", "attention TV",
]  # fmt: skip


def codecs_block() -> str:
    """Every codec with its defaults."""
    rows = []
    for name in names():
        codec, tables = default_of(name)
        params = codec_to_json(codec)["params"]
        shown = {key: value for key, value in params.items() if not is_text(value)}
        told = ", ".join(f"{key} {json.dumps(value)}" for key, value in shown.items()) or "none"
        profile = Profile(name, (Rule(codec),), tables=tables)
        rows.append([f"[`{name}`](formats/codecs/{name}.md)", told, *measured(profile)])
    return table(["codec", "its parameters, as they are by default", *COLUMNS], rows)


def default_of(name: str) -> tuple[Codec, Tables]:
    """A codec with its defaults; one without has the tables of a vector profile."""
    if name != FibQuant.name:
        return codec_from_json(name, {}, ""), {}
    vectors = FibQuantProfileV1.paper_default(64, 4, 256, 42)
    return fib_quant(Quantizer.build(vectors), "token")


def profiles_block() -> str:
    rows = []
    for name in builtin_names():
        profile = load_profile(name)
        if isinstance(profile, Profile):
            rows.append([f"`{name}`", profile.description, *measured(profile)])
    note = (
        f"Measured on `{CAPTURE.name}`, whole files, metadata included, with zstd {ZSTD} at level "
        "1 unless a profile says otherwise.\n"
    )
    return table(["profile", "what it does", *COLUMNS], rows) + "\n" + note


def exits_block() -> str:
    return table(["exit code", "meaning"], [[str(code), text] for code, text in EXITS.items()])


def errors_block() -> str:
    rows = [[f"KVQ-{error}", str(code), text] for error, (code, text) in MEANINGS.items()]
    return table(["id", "exit code", "meaning"], rows)


def files_block() -> str:
    rows = []
    for path in sorted(SAMPLES.glob("*.safetensors")):
        digest = f"`blake3:{blake3(path.read_bytes()).hexdigest()}`"
        rows.append([f"`{path.name}`", str(path.stat().st_size), digest])
    return table(["file", "bytes", "digest"], rows)


def commands_block() -> str:
    """What --help prints, for kvq and every command."""
    from kvq_cli.cli.run import parser

    os.environ |= {"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}
    os.environ.pop("KVQ_THREADS", None)
    sections = [f"Help text as Typer {TYPER} prints it.\n"]
    for words in commands():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            parser()([*words, "--help"], prog_name="kvq", standalone_mode=False)
        title = " ".join(["kvq", *words])
        text = "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())
        sections.append(f"## {title}\n\n```text\n{text}\n```\n")
    return "\n".join(sections)


def commands() -> Iterator[tuple[str, ...]]:
    """The words of every command, groups before their members."""
    from kvq_cli.cli.run import parser

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, (*words, name))

    return walk(parser(), ())


BLOCKS: Final[Mapping[str, Callable[[], str]]] = {
    "codecs": codecs_block,
    "profiles": profiles_block,
    "exits": exits_block,
    "errors": errors_block,
    "files": files_block,
    "commands": commands_block,
    **bench_docs.BLOCKS,
    **e2e_docs.BLOCKS,
    **fuzz_docs.BLOCKS,
    **mutation_docs.BLOCKS,
    **transform_docs.BLOCKS,
    **trust_docs.BLOCKS,
}


def replay(block: str, folder: Path) -> str:
    """The block's commands, each followed by what it prints now."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {key: text for key, text in os.environ.items() if not key.startswith("KVQ_")}
    environment = kept | {"PATH": path, "NO_COLOR": "1", "COLUMNS": "80"}
    lines = []
    for line in block.splitlines():
        if line.startswith("$ "):
            printed = subprocess.run(
                ["sh", "-c", line[2:]],
                cwd=folder,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            ).stdout
            lines += [line, *printed.splitlines()]
    return "".join(f"{line}\n" for line in lines)


def rendered(name: str) -> str:
    """A page as it should be."""
    page = BLOCK.sub(
        lambda match: f"{match[1]}{BLOCKS[match[2]]()}{match[3]}", (ROOT / name).read_text("utf-8")
    )
    if name != "README.md":
        return page
    with tempfile.TemporaryDirectory() as folder:
        copied = shutil.copytree(SAMPLES, Path(folder) / "sample_data")
        return CONSOLE.sub(lambda match: f"{match[1]}{replay(match[2], copied)}{match[3]}", page)


def comparable(page: str, sizes: bool) -> str:
    """The page without what another library version may change."""
    page = re.sub(r"with zstd \d[\d.]*", "with zstd", page)
    return page if sizes else re.sub(r" +", " ", NUMBER.sub("#", page))


def differs(name: str) -> bool:
    """Whether a page is not what this tool would write."""
    page = (ROOT / name).read_text("utf-8")
    if name == "docs/cli.md" and f"as Typer {TYPER} prints" not in page:
        print(f"{name}: made with another Typer than {TYPER}, not compared", file=sys.stderr)
        return False
    sizes = f"with zstd {ZSTD}" in (ROOT / "README.md").read_text("utf-8")
    return comparable(page, sizes) != comparable(rendered(name), sizes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    if not parser.parse_args().check:
        for name in PAGES:
            (ROOT / name).write_text(rendered(name), "utf-8")
        return 0
    stale = [name for name in PAGES if differs(name)]
    for name in stale:
        print(f"{name} is out of date: make docs", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
