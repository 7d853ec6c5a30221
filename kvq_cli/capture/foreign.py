"""foreign: files of other tools, told by first bytes or name, so that a refusal says what they are.

Spec: formats/capture.md, section "Files that are not captures".

Nothing of such a file is read but its first 4 KiB, and nothing is ever unpickled. A file that
begins as safetensors do, with a length below 16 MiB and a brace, is none of these:

    byte   0  1  2  3  4  5  6  7  8
           length   0  0  0  0  0  {
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import Final

from kvq_cli.capture.header import shown
from kvq_cli.errors import CaptureError
from kvq_cli.record import record

HEAD: Final = 4096  # bytes that are looked at
BEGINNING: Final = b"\0\0\0\0\0{"  # of a safetensors file, from byte 3
RECIPES: Final = "docs/other-tools.md has the lines of Python that make safetensors of it"
RUN: Final = "run the model and save its cache, as sample_data/capture_hf.py does"


@record
class Kind:
    """One row of the table: all that it states of a file must hold."""

    word: str
    told: str  # what such a file is
    advice: str  # what to do instead
    head: bytes = b""  # pattern of the first bytes
    name: str = ""  # pattern of the whole name; without one any fits

    def fits(self, head: bytes, name: str) -> bool:
        # Compiled when asked: a capture, which is none of these, does not wait for the patterns.
        named = not self.name or re.fullmatch(self.name, name, re.DOTALL)
        return bool(named and re.match(self.head, head, re.DOTALL))

    def refusal(self, example: str = "") -> CaptureError:
        return CaptureError("E209", f"{self.told}{example}, not a capture; {self.advice}")


def _packed(word: str, tool: str, head: bytes) -> Kind:
    unpacking = f"unpack it first, as in {tool} -dc FILE | kvq compress - -o OUT.kvq"
    return Kind(word, f"a file compressed with {tool}", unpacking, head)


# The first that fits counts: what is told by many bytes stands before what is told by a name,
# and the two bytes of a pickle come last.
KINDS: Final = (
    Kind("llamacpp_slot", "a slot file of llama.cpp", RECIPES, b"qsgg"),
    Kind(
        "llamacpp_session",
        "a session file of llama.cpp",
        "save one sequence as a slot file, of which docs/other-tools.md makes safetensors",
        b"nsgg",
    ),
    Kind("gguf", "a GGUF file, weights of a model", RUN, b"GGUF"),
    Kind(
        "torch",
        "a pickle of PyTorch, which may run code when it is loaded",
        "save its tensors with safetensors.torch.save_file("
        "torch.load(FILE, weights_only=True), OUT)",
        rb"PK\x03\x04.{26}[^\0]{0,200}?data\.pkl",
    ),
    Kind(
        "npz",
        "an archive of NumPy arrays",
        "save them with safetensors.numpy.save_file(dict(numpy.load(FILE)), OUT)",
        rb"PK\x03\x04.{26}[^\0]{1,200}?\.npy",
    ),
    Kind("zip", "a zip archive", "unpack it first", rb"PK\x03\x04|PK\x05\x06"),
    Kind(
        "npy",
        "a NumPy array",
        'save keys and values with safetensors.numpy.save_file({"key": numpy.load(KEYS), '
        '"value": numpy.load(VALUES)}, OUT)',
        rb"\x93NUMPY",
    ),
    _packed("gzip", "gzip", rb"\x1f\x8b\x08"),
    _packed("zstd", "zstd", rb"\x28\xb5\x2f\xfd"),
    _packed("xz", "xz", rb"\xfd7zXZ\0"),
    _packed("bzip2", "bzip2", rb"BZh[1-9]1AY&SY"),
    _packed("lz4", "lz4", rb"\x04\x22\x4d\x18"),
    Kind(
        "git_lfs",
        "a pointer of Git LFS in place of a file",
        "fetch the file with git lfs pull",
        rb"version https://git-lfs\.",
    ),
    Kind(
        "lmcache",
        "a raw chunk of LMCache, which has no header",
        RECIPES,
        name=r".+@[0-9]+@[0-9]+@-?[0-9a-f]+(?:@.+)?\.(?:pt|data)",
    ),
    Kind(
        "sglang",
        "a raw page of SGLang's HiCache, which has no header",
        RECIPES,
        name=r"[0-9a-f]{8,}_.+_[0-9]+_[0-9]+\.bin|[0-9a-f]{64}(?:[._].*)?\.bin",
    ),
    Kind("onnx", "an ONNX file, a model", RUN, rb"\x08[\x01-\x7f]", r".+\.onnx"),
    Kind(
        "pickle",
        "a pickle, which may run code when it is loaded",
        "load it where you trust it, and save its tensors with safetensors.torch.save_file",
        rb"\x80[\x02\x03]|\x80[\x04\x05]\x95",
    ),
)
WEIGHTS: Final = Kind("weights", "weights of a model, such as ", RUN)
WEIGHT: Final = (".weight", ".qweight", ".weight_packed", ".qweight_packed")


def is_safetensors(head: bytes) -> bool:
    return head[3:9] == BEGINNING


def kind_of(head: bytes, name: str) -> Kind | None:
    """Which tool's file begins with these bytes and has this name; None for a safetensors file."""
    if is_safetensors(head):
        return None
    base = PurePath(name).name
    return next((kind for kind in KINDS if kind.fits(head[:HEAD], base)), None)


def refuse_foreign(head: bytes, name: str) -> None:
    """CaptureError E209 where the file is another tool's."""
    if kind := kind_of(head, name):
        raise kind.refusal()


def refuse_weights(names: Iterable[str]) -> None:
    """CaptureError E209 where tensors that fit no layout are those of a model."""
    for name in names:
        if name.endswith(WEIGHT):
            raise WEIGHTS.refusal(f'"{shown(name)}"')
