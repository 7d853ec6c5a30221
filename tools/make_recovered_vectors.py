"""make_recovered_vectors: the only writer of formats/vectors/container/recovered.json.

    python tools/make_recovered_vectors.py             write the file
    python tools/make_recovered_vectors.py --check     compare it with what would be written

A case is a valid container, damaged, and what is left of it.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from blake3 import blake3

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "formats" / "vectors" / "container"
sys.path.insert(0, str(ROOT / "tests"))

from kvq_cli.errors import KvqError  # noqa: E402 - tests/ is no package
from kvq_cli.pipeline import decompress, recover  # noqa: E402
from kvq_cli.steps.lost import Fill  # noqa: E402
from support.surgery import operate  # noqa: E402
from vector_files import run  # noqa: E402

TOLD = ("complete", "pages", "lost", "unknown_sources", "content_root", "file_root")
ZERO = "00" * 32


def hurt(*chunks: int) -> list[dict[str, Any]]:
    """These chunks no longer hold."""
    return [{"set": f"/chunks/{number}/digest", "to": ZERO} for number in chunks]


def blurred(*chunks: int) -> list[dict[str, Any]]:
    """The headers of these chunks can no longer be believed."""
    return [{"set": f"/chunks/{number}/crc", "to": 0} for number in chunks]


CASES: tuple[tuple[str, str, list[dict[str, Any]]], ...] = (
    ("lossless-plain", "nothing is wrong", []),
    ("lossless-plain", "the footer is cut off", [{"truncate": -128}]),
    ("lossless-plain", "the footer is damaged", [{"flip": -3, "mask": 1}]),
    ("lossless-plain", "something follows the footer", [{"append": "00"}]),
    ("lossless-plain", "the root is damaged", hurt(6)),
    ("lossless-plain", "the root is cut off", [{"truncate": -300}]),
    ("lossless-plain", "a leaf is damaged: lossless pages tell their source", hurt(5)),
    ("int8-channel", "a leaf is damaged: sources are not known any more", hurt(3)),
    ("int8-channel", "the header of a leaf is damaged", blurred(3)),
    ("lossless-plain", "the first page is damaged", hurt(1)),
    ("lossless-plain", "the last page is damaged", hurt(4)),
    ("lossless-plain", "every page but one", hurt(1, 2, 4)),
    ("lossless-plain", "every page", hurt(1, 2, 3, 4)),
    ("lossless-plain", "the header of a page is damaged", blurred(2)),
    ("lossless-plain", "headers of pages side by side", blurred(1, 2, 3)),
    ("ragged", "pages of several layers", hurt(2, 5)),
    ("int8-token", "pages of some heads", hurt(1, 6)),
    ("all-layers", "a layer of keys", hurt(1)),
    ("non-finite", "a page", hurt(3)),
    ("lossless-zstd", "a page", hurt(3)),
    ("lossless-plain", "bytes of the first page are missing", [{"remove": 3000, "bytes": 7}]),
    (
        "lossless-plain",
        "bytes are put into the header of the source",
        [{"insert": 2560, "hex": "00" * 96}],
    ),
    ("lossless-plain", "a page is there twice", [{"copy": "/chunks/2", "to": "/chunks/3"}]),
    ("lossless-plain", "pages are exchanged", [{"swap": ["/chunks/1", "/chunks/2"]}]),
    ("lossless-plain", "a page of another file", [{"set": "/chunks/2/bound_to", "to": ZERO}]),
    ("lossless-plain", "padding is damaged", [{"set": "/chunks/1/padding", "to": "01" * 40}]),
    ("lossless-plain", "the header of the source is damaged", hurt(0)),
    ("folder", "the header of a file, and what is no file of tensors", hurt(0, 2)),
    ("extras", "tensors that are not stored as pages", hurt(1, 2)),
    ("extras", "one of them", hurt(2)),
    ("folder-in-doubt", "a tensor, where there are no pages", hurt(3)),
    ("fib-quant", "a table: pages that need it are lost with it", hurt(2)),
    ("fib-quant", "tables are exchanged", [{"swap": ["/chunks/1", "/chunks/2"]}]),
    ("fib-quant", "a page and a tensor", hurt(3, 5)),
    ("fib-quant-token", "both tables", hurt(1, 2)),
    ("budget", "what was measured", hurt(1)),
    ("budget", "some pages", hurt(4, 9, 10)),
    ("padded", "a page", hurt(4)),
    ("packed-blocks", "a page", hurt(3)),
    ("heads-in-channels", "a page", hurt(2)),
    ("lossless-plain", "the header", [{"flip": 70, "mask": 1}]),
    ("lossless-plain", "the preamble", [{"flip": 20, "mask": 1}]),
    ("lossless-plain", "cut off inside the header", [{"truncate": 100}]),
    ("lossless-plain", "cut off behind the header", [{"truncate": 2300}]),
    ("page-layers", "a page of two layers", hurt(1)),
    (
        "page-layers",
        "all pages of a group, and the header of another's",
        [*hurt(1, 2), *blurred(7)],
    ),
    ("page-layers-unlike", "pages of several layers, of some heads", hurt(2, 6, 20)),
)


def digests(path: Path) -> str | dict[str, str]:
    """The BLAKE3 of a file, or of each file of a folder."""
    if path.is_file():
        return "blake3:" + blake3(path.read_bytes()).hexdigest()
    return {each.name: str(digests(each)) for each in sorted(path.iterdir())}


def outcome(damaged: bytes, folder: Path) -> dict[str, Any]:
    torn, whole = folder / "torn", folder / "whole"
    torn.write_bytes(damaged)
    try:
        report = recover(torn, whole, threads=1).to_json()
    except KvqError as error:
        return {"error": error.error_id}
    restored = {}
    for fill in Fill:
        decompress(whole, folder / fill, partial=fill, threads=1)
        restored[fill.value] = digests(folder / fill)
    return {name: report[name] for name in TOLD} | restored


def case(number: int) -> dict[str, Any]:
    base, what, edits = CASES[number]
    vector = json.loads((FOLDER / "valid" / f"{base}.json").read_text())
    damaged = operate(base64.b64decode(vector["container"]), edits)
    with tempfile.TemporaryDirectory() as folder:
        found = outcome(damaged, Path(folder))
    return {"id": number + 1, "base": base, "what": what, "edits": edits, **found}


if __name__ == "__main__":
    vectors = {"recovered": {"cases": [case(number) for number in range(len(CASES))]}}
    sys.exit(run(__doc__ or "", Path(__file__).name, FOLDER, vectors))
