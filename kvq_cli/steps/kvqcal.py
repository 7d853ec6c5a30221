"""kvqcal: calibrations of the codec transform: what a decoder needs, and what an encoder does.

Spec: formats/transform.md.

    basis             U8 [N]        the basis table
    forward.G         I16 [n, r]    of group G: matrix
    forward.G.in      I16 [n]       and the exponents of what goes in,
    forward.G.out     I16 [r]       and of what comes out

A safetensors file of just these. Anything else is refused, sizes before anything is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from kvq_cli.capture.header import Header, Tensor, header_size, parse_header
from kvq_cli.capture.writer import new_header
from kvq_cli.codecs.basis import MAX_EXPONENT, Basis, Group
from kvq_cli.digest import Buffer, text
from kvq_cli.errors import CaptureError, CodecError, FileError, ProfileError, reason
from kvq_cli.planes import read_only
from kvq_cli.record import record
from kvq_cli.steps.rounding import MAX_OUT, Forward
from kvq_cli.words import MAX_TABLE_BYTES

SCHEMA: Final = "kvq_transform_v1"
SUFFIX: Final = ".kvqcal"
BASIS: Final = "basis"
MAX_FILE: Final = 1 << 28
HEAD: Final = 8


@record(eq=False)
class Kvqcal:
    """A calibration; forward matrices are in the order of the basis table's groups."""

    digest: str
    metadata: Mapping[str, str]
    table: bytes  # of the basis, as a container carries it
    basis: Basis
    forward: tuple[Forward, ...]

    @property
    def array(self) -> NDArray[np.uint8]:
        """The table as codecs take it."""
        return read_only(np.frombuffer(self.table, np.uint8))


def file_of(
    table: bytes, forward: Sequence[Forward], metadata: Mapping[str, str]
) -> tuple[Header, list[Buffer]]:
    """The header of a calibration, and its data in the order of the file."""
    arrays = {name: each for at, one in enumerate(forward) for name, each in _named(at, one)}
    tensors = [(name, "I16", each.shape) for name, each in arrays.items()]
    header = new_header([*tensors, (BASIS, "U8", (len(table),))], {**metadata, "schema": SCHEMA})
    data = [
        table if each.name == BASIS else arrays[each.name].astype("<i2").tobytes()
        for each in header.tensors
    ]
    return header, list[Buffer](data)


def load_kvqcal(path: str | Path) -> Kvqcal:
    """The calibration in a file; ProfileError E401 or E404 where it is none."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            if size > MAX_FILE:
                raise ProfileError("E404", f"{size} bytes, at most {MAX_FILE} are allowed")
            prefix = file.read(HEAD)
            try:
                raw = prefix + file.read(header_size(prefix, size) - len(prefix))
            except CaptureError as error:
                raise _as_profile(error) from error
            header = checked_header(raw, size)
            data = raw + file.read(size - len(raw))
    except OSError as error:
        raise FileError("E601", f"{path}: {reason(error)}") from error
    if len(data) != size:
        raise _refusal(f"{len(data)} bytes were read of {size}")
    return _read(header, memoryview(data))


def checked_header(raw: bytes, size: int) -> Header:
    """The header of a calibration, its tensors as far as they can be checked without data."""
    try:
        header = parse_header(raw, size)
    except CaptureError as error:
        raise _as_profile(error) from error
    if header.metadata.get("schema") != SCHEMA:
        raise _refusal(f"metadata schema is not {SCHEMA}")
    tensors = {each.name: each for each in header.tensors}
    table = tensors.get(BASIS)
    if table is None or table.dtype != "U8" or len(table.shape) != 1:
        raise _refusal(f'no tensor "{BASIS}" of U8 and one dimension')
    if table.nbytes > MAX_TABLE_BYTES:
        what = f"basis table of {table.nbytes} bytes, at most {MAX_TABLE_BYTES} are allowed"
        raise ProfileError("E404", what)
    return header


def _read(header: Header, data: memoryview) -> Kvqcal:
    tensors = {each.name: each for each in header.tensors}
    table = bytes(_part(data, tensors[BASIS]))
    try:
        basis = Basis.from_bytes(table)
    except CodecError as error:
        raise _refusal(str(error)) from error
    shapes = {
        name: shape for at, each in enumerate(basis.groups) for name, shape in _shapes(at, each)
    }
    found = {each.name: (each.dtype, each.shape) for each in header.tensors if each.name != BASIS}
    if found != {name: ("I16", shape) for name, shape in shapes.items()}:
        odd = min(found.items() ^ {(name, ("I16", shape)) for name, shape in shapes.items()})
        raise _refusal(f'tensor "{odd[0][:40]}" is not what the basis table asks for')
    forward = tuple(_forward(data, tensors, at) for at in range(len(basis.groups)))
    return Kvqcal(text(blake3(data).digest()), header.metadata, table, basis, forward)


def _forward(data: memoryview, tensors: Mapping[str, Tensor], at: int) -> Forward:
    names = (f"forward.{at}", f"forward.{at}.in", f"forward.{at}.out")
    matrix, inward, outward = (
        np.frombuffer(_part(data, tensors[name]), "<i2").reshape(tensors[name].shape)
        for name in names
    )
    for name, array, most in zip(names, (matrix, inward, outward), LIMITS, strict=True):
        if array.size and (array.min() < -most or array.max() > most):
            raise _refusal(f'tensor "{name}" holds a number beyond {most}')
    return Forward(matrix, inward, outward)


LIMITS: Final = (2**15 - 1, MAX_EXPONENT, MAX_OUT)


def _named(at: int, forward: Forward) -> list[tuple[str, np.ndarray]]:
    return [
        (f"forward.{at}", forward.matrix),
        (f"forward.{at}.in", forward.inward),
        (f"forward.{at}.out", forward.outward),
    ]


def _shapes(at: int, group: Group) -> list[tuple[str, tuple[int, ...]]]:
    size, rank = group.dimensions, group.rank
    names = (f"forward.{at}", f"forward.{at}.in", f"forward.{at}.out")
    return list(zip(names, ((size, rank), (size,), (rank,)), strict=True))


def _part(data: memoryview, tensor: Tensor) -> memoryview:
    return data[tensor.start : tensor.stop]


def _as_profile(error: CaptureError) -> ProfileError:
    """A damaged header, told as that of a calibration."""
    return ProfileError("E404" if error.error_id == "E207" else "E401", str(error))


def _refusal(what: str) -> ProfileError:
    return ProfileError("E401", f"not a calibration of transform: {what}")
