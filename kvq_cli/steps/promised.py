"""promised: what a container's header promises of its source, codecs and tables, checked.

Spec: formats/container.md, section "Header".
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from kvq_cli.capture.binding import Binding
from kvq_cli.capture.files import File
from kvq_cli.capture.header import Tensor, parse_header
from kvq_cli.capture.writer import new_header
from kvq_cli.codecs import Codec
from kvq_cli.codecs.registry import codec_from_json, codec_to_json
from kvq_cli.container.manifest import FileEntry, Manifest, Rows
from kvq_cli.digest import plain, text
from kvq_cli.errors import CaptureError, ContainerError, DigestError, ProfileError
from kvq_cli.words import TableSpec


def source_file(manifest: Manifest, number: int, raw: bytes) -> File:
    """A file of the source; ContainerError unless the manifest describes it."""
    entry = manifest.files[number] if manifest.files else FileEntry("", None)
    name = entry.name or None
    if entry.digest is not None:
        if text(plain(raw)) != entry.digest:
            raise DigestError(f'digest of the file "{entry.name}" does not hold')
        return File(name, raw, None)
    mine = [tensor for tensor in manifest.tensors if tensor.file == number]
    try:
        header = parse_header(raw, len(raw) + sum(tensor.nbytes for tensor in mine))
    except CaptureError as error:
        raise ContainerError("E304", f"source header: {error}") from error
    found = [(each.name, each.dtype, each.shape) for each in header.tensors]
    if found != [(each.name, each.dtype, each.shape) for each in mine]:
        raise ContainerError("E304", "source header and manifest list other tensors")
    if len(header.raw) != len(raw):
        raise ContainerError("E304", "source header is shorter than its chunk")
    return File(name, raw, header)


def lost_file(manifest: Manifest, number: int) -> File:
    """In place of a file whose HEAD chunk is lost: a new header, or nothing without tensors."""
    entry = manifest.files[number] if manifest.files else FileEntry("", None)
    if entry.digest is not None:
        return File(entry.name, b"", None)
    mine = [tensor for tensor in manifest.tensors if tensor.file == number]
    header = new_header([(each.name, each.dtype, each.shape) for each in mine], {})
    return File(entry.name or None, header.raw, header)


def binding_of(rows: Rows, tensor: Tensor) -> Binding:
    """Where a tensor has its rows, as the manifest tells it."""
    return Binding(
        tensor=tensor,
        roles=rows.roles,
        axes=rows.axes,
        lengths=rows.lengths,
        first_layer=rows.first_layer,
        first_head=rows.first_head,
        stored=rows.tokens,
    )


def container_codecs(manifest: Manifest) -> tuple[Codec, ...]:
    """The codecs that the header names; unknown ones are refused."""
    try:
        codecs = tuple(
            codec_from_json(
                each["name"],
                each["params"],
                f"/content/codecs/{at}/params",
                revision=each["revision"],
            )
            for at, each in enumerate(manifest.codecs)
        )
    except ProfileError as error:
        raise ContainerError("E304", f"header {error}", 64) from error
    for codec, each in zip(codecs, manifest.codecs, strict=True):
        if codec_to_json(codec) != each:
            raise ContainerError("E304", f"header: codec {codec.name} is not named in full", 64)
    _check_tables(codecs, manifest)
    return codecs


def named_tables(codecs: Sequence[Codec]) -> tuple[TableSpec, ...]:
    """The tables that codecs need, once each, in order of first use."""
    return tuple(dict.fromkeys(chain.from_iterable(codec.tables() for codec in codecs)))


def _check_tables(codecs: Sequence[Codec], manifest: Manifest) -> None:
    """ContainerError unless the header has the tables that its codecs need, and no other."""
    named, there = set(named_tables(codecs)), set(manifest.tables)
    for table in sorted(named ^ there, key=lambda table: table.digest):
        which = "lacks" if table in named else "has, and no codec needs,"
        shape = f"{table.dtype} {list(table.shape)} {table.digest}"
        raise ContainerError("E304", f"header {which} the table {shape}", 64)
