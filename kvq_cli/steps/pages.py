"""pages: chunks of a container become checked planes, and planes become rows.

Nothing is decoded before the chunk's digest held, the record fits the header and every
packed length is what the codec's layout says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.capture.header import Header, parse_header
from kvq_cli.codecs import Codec
from kvq_cli.codecs.registry import codec_from_json, codec_to_json
from kvq_cli.container import chunk, coded
from kvq_cli.container.chunk import ChunkHeader
from kvq_cli.container.coded import Table
from kvq_cli.container.coverage import Coverage
from kvq_cli.container.manifest import Manifest
from kvq_cli.container.reader import PAGE_RECORD, SOURCE_RECORD, TENSOR_RECORD, Chunk, Reader
from kvq_cli.container.records import PIECE, PageRecord, read_page_record, read_tensor_record
from kvq_cli.errors import CaptureError, ContainerError, ProfileError
from kvq_cli.page import Page
from kvq_cli.planes import Layout, cut, cuts_tokens, packed_sizes, unpack
from kvq_cli.steps.work import Bench
from kvq_cli.words import DType, PageSpec

MAX_HEAD: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class OpenedPage:
    """A page whose digests held, its planes ready to decode."""

    header: ChunkHeader
    record: PageRecord
    spec: PageSpec
    table: Table
    planes: dict[str, NDArray[Any]]
    packed_digest: bytes


@dataclass(frozen=True, slots=True)
class OpenedTensor:
    """A piece of a tensor that is not stored as pages."""

    header: ChunkHeader
    tensor: int
    at: int
    data: memoryview
    packed_digest: bytes


class PageOpener:
    """Checks chunks and decodes their planes; safe to call from many threads."""

    def __init__(self, reader: Reader) -> None:
        self.manifest = reader.manifest
        self.codecs = container_codecs(reader.manifest)
        self._coverage = Coverage(reader.manifest)
        self._bench = Bench()
        self._layouts: dict[tuple[int, PageSpec], tuple[Layout, tuple[int, ...]]] = {}

    def page(self, each: Chunk) -> OpenedPage:
        payload = each.load()
        header = each.header
        body = header.offset + chunk.SIZE
        table = coded.read_table(chunk.PAGE, PAGE_RECORD, payload, body)
        record = read_page_record(table.record, body)
        spec = self._coverage.spec(record)
        layout, sizes = self.layout(record.codec, spec)
        self._check_packed(table, header, sizes)
        packed = coded.decode(table, payload, self._bench.decoder, body)
        digest = coded.packed_digest(chunk.PAGE, table.record, packed)
        planes = unpack(layout, packed)
        self.codecs[record.codec].check(planes, spec)
        return OpenedPage(header, record, spec, table, planes, digest)

    def tensor(self, each: Chunk) -> OpenedTensor:
        payload = each.load()
        body = each.header.offset + chunk.SIZE
        table = coded.read_table(chunk.TENS, TENSOR_RECORD, payload, body)
        tensor, at = read_tensor_record(table.record, body)
        entries = self.manifest.tensors
        if tensor >= len(entries) or at >= entries[tensor].nbytes:
            raise ContainerError("E304", "tensor piece outside its tensor", body)
        size = min(PIECE, entries[tensor].nbytes - at)
        self._check_packed(table, each.header, [size])
        (data,) = coded.decode(table, payload, self._bench.decoder, body)
        digest = coded.packed_digest(chunk.TENS, table.record, [data])
        return OpenedTensor(each.header, tensor, at, data, digest)

    def head(self, each: Chunk) -> Header:
        """The source file's header; it must list the tensors that the manifest lists."""
        payload = each.load()
        body = each.header.offset + chunk.SIZE
        table = coded.read_table(chunk.HEAD, SOURCE_RECORD, payload, body)
        if table.record != bytes(SOURCE_RECORD) or each.header.packed > MAX_HEAD:
            raise ContainerError("E304", "source header holds a value outside the spec", body)
        self._check_packed(table, each.header, [each.header.packed])
        (data,) = coded.decode(table, payload, self._bench.decoder, body)
        return source_header(self.manifest, bytes(data))

    def rows(
        self, page: OpenedPage, heads: Sequence[int], tokens: Sequence[int], dtype: DType | None
    ) -> NDArray[Any]:
        """The bits of chosen heads and tokens, by their place in the page; alive in scratch."""
        spec, planes = page.spec, page.planes
        layout = self.layout(page.record.codec, spec)[0]
        cut_after = not (_is_all(tokens, spec.tokens) or cuts_tokens(layout))
        taken = range(spec.tokens) if cut_after else tokens
        if not (_is_all(heads, spec.heads) and _is_all(taken, spec.tokens)):
            planes = cut(layout, planes, _index(heads), _index(taken))
            spec = PageSpec(len(heads), len(taken), spec.channels, spec.dtype)
        target = PageSpec(spec.heads, spec.tokens, spec.channels, dtype or spec.dtype)
        bits = self._bench.scratch.take("rows", target.shape, target.dtype.bits)
        self.codecs[page.record.codec].decode(planes, spec, Page(target, bits), self._bench.scratch)
        return np.ascontiguousarray(bits[:, _index(tokens)]) if cut_after else bits

    def layout(self, codec: int, spec: PageSpec) -> tuple[Layout, tuple[int, ...]]:
        """Layout and packed sizes; most pages of a container share theirs."""
        found = self._layouts.get((codec, spec))
        if found is None:
            layout = self.codecs[codec].layout(spec)
            found = self._layouts[codec, spec] = layout, packed_sizes(layout)
        return found

    @staticmethod
    def _check_packed(table: Table, header: ChunkHeader, sizes: Sequence[int]) -> None:
        coded.check_sizes(table, sizes, header.offset + chunk.SIZE)
        if sum(sizes) != header.packed:
            raise ContainerError("E304", "packed length is not that of the planes", header.offset)


def source_header(manifest: Manifest, raw: bytes) -> Header:
    """The header of the source file; ContainerError unless the manifest describes it."""
    size = len(raw) + sum(tensor.nbytes for tensor in manifest.tensors)
    try:
        header = parse_header(raw, size)
    except CaptureError as error:
        raise ContainerError("E304", f"source header: {error}") from error
    found = [(each.name, each.dtype, each.shape) for each in header.tensors]
    if found != [(each.name, each.dtype, each.shape) for each in manifest.tensors]:
        raise ContainerError("E304", "source header and manifest list other tensors")
    if len(header.raw) != len(raw):
        raise ContainerError("E304", "source header is shorter than its chunk")
    return header


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
    return codecs


def _is_all(places: Sequence[int], count: int) -> bool:
    everything = range(count)
    return places == everything or (len(places) == count and list(places) == list(everything))


def _index(places: Sequence[int]) -> slice | NDArray[Any]:
    """A slice where places follow each other: it makes views, not copies."""
    run = range(places[0], places[0] + len(places))
    follow = places == run or list(places) == list(run)
    return slice(run.start, run.stop) if follow else np.asarray(places)
