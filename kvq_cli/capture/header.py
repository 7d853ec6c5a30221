"""header: the header of a safetensors file, read strictly.

Spec: formats/capture.md, section "Header".

    file   := length json data          length: u64, the bytes of json
    json   := {"__metadata__": {text: text}, name: tensor, ...}, padded with spaces
    tensor := {"dtype": text, "shape": [..], "data_offsets": [start, stop]}, and what LMCache
              adds: "fmt": number, "__metadata__": {text: text}

Offsets count from the first byte of data. The tensors cover data without overlap, hole or
rest. They need not be aligned: MLX writes headers of any length, and kvq copies rather than
maps. Any bytes give a Header or a CaptureError; sizes are Python integers, which do not wrap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, Final

from kvq_cli import jsontext
from kvq_cli.errors import CaptureError, ProfileError
from kvq_cli.record import record
from kvq_cli.words import ELEMENT_BITS

# A header takes about 100 bytes a tensor; LMCache's longest pad to 4 KiB.
MAX_HEADER: Final = 8 << 20
MAX_QUOTES: Final = 1 << 18  # a tensor has 10: memory goes by strings, not by bytes
MAX_RANK: Final = 8
MAX_BITS: Final = 1 << 63  # the official parser counts bits in 64-bit words
MAX_SHOWN: Final = 120
LENGTH_SIZE: Final = 8
METADATA: Final = "__metadata__"
MEMBERS: Final = frozenset({"dtype", "shape", "data_offsets"})
FORM: Final = "fmt"
ADDED: Final = frozenset({FORM, METADATA})  # that LMCache adds, and other readers pass over


@record
class Tensor:
    """A tensor and the bytes of the file it takes, half-open."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int
    file: int = 0  # its number, where a capture has several
    form: int | None = None  # LMCache's number for an order of axes

    @property
    def nbytes(self) -> int:
        return self.stop - self.start


@record
class Header:
    """All that a file says about itself; tensors are in data order."""

    tensors: tuple[Tensor, ...]
    metadata: dict[str, str]
    raw: bytes  # length and json, verbatim
    file_size: int


def shown(text: str) -> str:
    """Text from a file as it may be printed: escaped, in ASCII, not endless."""
    escaped = json.dumps(text[:MAX_SHOWN])[1:-1]
    return escaped if len(text) <= MAX_SHOWN else f"{escaped}..."


def header_size(prefix: bytes, file_size: int) -> int:
    """Bytes of length and json together, from the first bytes of the file."""
    if len(prefix) < LENGTH_SIZE or file_size < LENGTH_SIZE:
        raise CaptureError(
            "E201", f"not a safetensors file: {min(len(prefix), file_size)} bytes, 8 or more needed"
        )
    length = int.from_bytes(prefix[:LENGTH_SIZE], "little")
    # Any other file type has an absurd length here: that is damage, not a limit.
    if length > file_size - LENGTH_SIZE:
        raise CaptureError(
            "E201", f"not a safetensors file: header of {length} bytes in a file of {file_size}"
        )
    if length > MAX_HEADER:
        raise CaptureError("E207", f"header of {length} bytes, at most {MAX_HEADER} are allowed")
    return LENGTH_SIZE + length


def parse_header(raw: bytes, file_size: int) -> Header:
    """The header at the start of a file of `file_size` bytes; `raw` may run past it."""
    size = header_size(raw, file_size)
    if len(raw) < size:
        raise CaptureError("E201", f"header of {size} bytes, only {len(raw)} were read")
    members = _members(raw[LENGTH_SIZE:size])
    metadata = _metadata(members.pop(METADATA, {}))
    tensors = [_tensor(name, entry, size) for name, entry in members.items()]
    # Empty tensors share their offset with the next one, hence the stop as second key.
    tensors.sort(key=lambda tensor: (tensor.start, tensor.stop))
    _check_cover(tensors, size, file_size)
    return Header(tuple(tensors), metadata, bytes(raw[:size]), file_size)


def _members(text: bytes) -> dict[str, Any]:
    if text[:1] != b"{":
        raise CaptureError("E201", f"header starts with {text[:1]!r}, not with '{{'")
    if text.count(b'"') > MAX_QUOTES:
        raise CaptureError("E207", f"header with more than {MAX_QUOTES} quotation marks")
    try:
        members: dict[str, Any] = jsontext.loads(text, limit=MAX_HEADER)
    except ProfileError as error:
        raise CaptureError("E201", f"header is not strict JSON: {shown(str(error))}") from error
    return members


def _metadata(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise CaptureError("E201", f"{METADATA} is {_kind(value)}, not an object")
    for key, text in value.items():
        if not isinstance(text, str):
            raise CaptureError("E201", f'{METADATA} "{shown(key)}" is {_kind(text)}, not a string')
    return value


def _tensor(name: str, entry: object, base: int) -> Tensor:
    if not isinstance(entry, dict):
        raise _refusal(name, f"{_kind(entry)}, not an object")
    if entry.keys() - ADDED != MEMBERS:
        odd = min((entry.keys() - ADDED) ^ MEMBERS)
        fault = "unknown" if odd in entry else "missing"
        raise _refusal(name, f'{fault} member "{shown(odd)}"')
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str):
        raise _refusal(name, f"dtype is {_kind(dtype)}, not a string")
    if not _counts(shape):
        raise _refusal(name, "shape is not an array of integers from 0")
    if not _counts(offsets) or len(offsets) != 2:
        raise _refusal(name, "data_offsets is not two integers from 0")
    if dtype not in ELEMENT_BITS:
        raise _refusal(name, f'dtype "{shown(dtype)}" is not one of safetensors', "E203")
    start, stop = offsets
    nbytes = _nbytes(name, dtype, shape)
    if stop - start != nbytes:
        raise _refusal(
            name, f"{dtype} of shape {shape} takes {nbytes} bytes, its span is {start}:{stop}"
        )
    form = _added(name, entry)
    return Tensor(name, dtype, tuple(shape), base + start, base + stop, form=form)


def _added(name: str, entry: dict[str, Any]) -> int | None:
    """What `fmt` says; a `__metadata__` in here tells nothing, and must be one."""
    try:
        _metadata(entry.get(METADATA, {}))
    except CaptureError as error:
        raise _refusal(name, str(error)) from error
    form: int | None = entry.get(FORM)
    if FORM in entry and not _counts([form]):
        raise _refusal(name, f"{FORM} is not an integer from 0")
    return form


def _nbytes(name: str, dtype: str, shape: list[int]) -> int:
    if len(shape) > MAX_RANK:
        raise _refusal(name, f"{len(shape)} dimensions, at most {MAX_RANK} are allowed", "E207")
    # Zeros left out: [2**62, 8, 0] is empty, and overflows in readers that multiply in order.
    if math.prod(filter(None, shape)) * ELEMENT_BITS[dtype] >= MAX_BITS:
        raise _refusal(name, f"shape {shape} has 2**63 bits or more", "E207")
    nbytes, rest = divmod(math.prod(shape) * ELEMENT_BITS[dtype], 8)
    if rest:
        raise _refusal(name, f"{dtype} of shape {shape} ends inside a byte")
    return nbytes


def _check_cover(tensors: Iterable[Tensor], at: int, file_size: int) -> None:
    for tensor in tensors:
        if tensor.start != at:
            fault = "overlaps the tensor before it" if tensor.start < at else "follows a hole"
            place = f"data starts at byte {tensor.start} of the file"
            raise _refusal(tensor.name, f"{place} and {fault}, which ends at {at}")
        at = tensor.stop
    if at != file_size:
        fault = "truncated" if at > file_size else "bytes follow the last tensor"
        raise CaptureError("E201", f"{fault}: header says {at} bytes, the file has {file_size}")


def _counts(value: object) -> bool:
    # By type, not isinstance: true is an int to Python.
    return (
        isinstance(value, list)
        and {int}.issuperset(map(type, value))
        and min(value, default=0) >= 0
    )


def _refusal(name: str, message: str, error_id: str = "E201") -> CaptureError:
    return CaptureError(error_id, message, shown(name))


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "an array", str: "a string", type(None): "null"}
    return kinds.get(type(value), "true or false" if isinstance(value, bool) else "a number")
