"""chunks: what follows a header that holds: chunks, planes, pages, index, footer.

input := base(1) how(1) rest       base: which of the small containers' headers
how    bit 0  rest is the bytes from the first chunk on; otherwise a stream of forge
       bit 1  from a pipe
       bit 2  by the index: entries, then pages alone
       bit 3  stored digests alone
       bit 4  pages are decoded
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from fuzzing import forge
from fuzzing.memory import Bytes
from fuzzing.vectors import containers, edited
from kvq_cli.container.manifest import Manifest
from kvq_cli.container.reader import Reader
from kvq_cli.container.source import Forward
from kvq_cli.errors import CodecError, ContainerError
from kvq_cli.record import record
from kvq_cli.steps import pages
from kvq_cli.steps.audited import check_stored, read_all
from kvq_cli.steps.comparison import Comparison
from kvq_cli.steps.pages import PageOpener, Stack
from kvq_cli.steps.restore import open_front, page_of
from kvq_cli.steps.work import silent

# Small ones of every kind: they decide how fast this target is.
NAMES: Final = (
    "raw", "int8-channel", "extras", "all-layers", "heads-in-channels", "non-finite",
    "folder-in-doubt", "lossless-zstd", "fib-quant", "partial",
)  # fmt: skip
MOST: Final = 1 << 10  # results that are remembered
RAW, PIPE, INDEX, STORED, ROWS = 1, 2, 4, 8, 16


@record
class Base:
    """A container that is valid, and what is made of its header once."""

    name: str
    start: bytes
    chunks: bytes
    reader: Reader
    forge: forge.Forge


class Rows(Comparison):
    """As `verify` goes through a container, and the rows of every page besides."""

    def pages(self, stack: Stack) -> list[bytes | None]:
        self._opener.all_rows(stack)
        return super().pages(stack)


def _base(name: str, data: bytes) -> Base:
    reader = Reader(Bytes(data))
    start, chunks = data[: reader.first_chunk], data[reader.first_chunk :]
    sources: dict[bytes, bytes] = {}
    for entry in reader.entries():
        sources[entry.packed_digest] = entry.source_digest
    content = reader.manifest.content_digest()
    return Base(name, start, chunks, reader, forge.Forge(start, reader.alignment, content, sources))


BASES: Final = tuple(_base(name, dict(containers())[name]) for name in NAMES)


MANIFESTS: Final = frozenset(id(base.reader.manifest) for base in BASES)


def _once(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, remembered for the bases' manifests, which live as long as the process."""
    found: dict[Any, Any] = {}

    def remembered(manifest: Manifest, *rest: Any) -> Any:
        if id(manifest) not in MANIFESTS:
            return function(manifest, *rest)
        place = (id(manifest), *rest)
        if place not in found:
            if len(found) > MOST:
                return function(manifest, *rest)
            found[place] = function(manifest, *rest)
        return found[place]

    return remembered


def prepare() -> None:
    """Read anew what is remembered here would take half of the time; `front` and `capture` do."""
    for name in ("container_codecs", "source_file"):
        setattr(pages, name, _once(getattr(pages, name)))
    Manifest.content_digest = _once(Manifest.content_digest)  # type: ignore[method-assign]


def run(data: bytes) -> str:
    if len(data) < 2:
        return "short"
    base, how = BASES[data[0] % len(BASES)], data[1]
    chunks = data[2:] if how & RAW else base.forge.made(data[2:])
    try:
        read(reader_of(base, chunks, pipe=bool(how & PIPE)), how)
    except (ContainerError, CodecError) as error:
        return error.error_id
    if how & RAW and not how & (INDEX | STORED) and chunks != base.chunks:
        raise AssertionError("a container that was altered passes verify")
    return "parsed"


def reader_of(base: Base, chunks: bytes, *, pipe: bool) -> Reader:
    """A reader of the base's header, which is checked once, and of other chunks."""
    reader = Reader.__new__(Reader)
    vars(reader).update(vars(base.reader))
    reader.source = Bytes(base.start + chunks, pipe=pipe)
    if pipe:
        reader.source.read(0, len(base.start))
    reader._forward = Forward(reader.source, reader.first_chunk)  # noqa: SLF001
    return reader


def read(reader: Reader, how: int) -> None:
    if how & INDEX and reader.source.seekable:
        opener = PageOpener(reader)
        open_front(reader, opener)
        for entry in reader.entries():
            opener.all_rows(page_of(reader, opener, entry))
    elif how & STORED:
        check_stored(reader, None, silent)
    else:
        story = Rows(None) if how & ROWS else Comparison(None)
        read_all(reader, None, story.begin, silent)
        story.finish()


def seeds() -> Iterator[tuple[str, bytes]]:
    for number, base in enumerate(BASES):
        stream = forge.pieces(base.chunks, base.reader.alignment)
        for how in (0, PIPE, INDEX, STORED, ROWS):
            yield f"valid/{base.name}, {how}", bytes([number, how]) + stream
        yield f"valid/{base.name}, raw", bytes([number, RAW]) + base.chunks
    for name, payload in notes():
        stream = forge.pieces(BASES[0].chunks, BASES[0].reader.alignment)
        head = forge.PIECE.size + forge.PIECE.unpack_from(stream)[1]
        note = forge.PIECE.pack(forge.TYPES.index(b"qual"), len(payload)) + payload
        yield name, bytes(2) + stream[:head] + note + stream[head:]
    starts = {base.start: number for number, base in enumerate(BASES)}
    # Those of unusual.json hold, so `run` would take them for altered ones that pass.
    for name, data in edited("chunks", "footer", "index", "pages", "layers", "planes", "partial"):
        for start, number in starts.items():
            if data.startswith(start):
                yield name, bytes([number, RAW | ROWS]) + data[len(start) :]


def notes() -> Iterator[tuple[str, bytes]]:
    """What a `qual` chunk may tell, and what it may not."""
    worst = {"max_logit_mse": {"head": 1, "layer": 0, "value": 0.25}}
    for bounds in ({"max_logit_mse": 0.5}, {"max_logit_mse": 1}, {}):
        told = {"bounds": bounds, "schema": "kvq_quality_v1", "worst": worst}
        yield f"qual, bounds {bounds}", json.dumps(told, separators=(",", ":")).encode()
