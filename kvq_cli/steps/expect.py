"""expect: what a container is held against: profile, shape, identity, roots, size, its capture.

A broken expectation is not damage: the file is intact. All of them are found, not the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Final

import numpy as np

from kvq_cli.capture import Capture
from kvq_cli.capture.files import Files
from kvq_cli.capture.slab import read_rows
from kvq_cli.container import chunk
from kvq_cli.container.chunk import ChunkHeader
from kvq_cli.container.footer import Footer
from kvq_cli.container.index import read_leaf
from kvq_cli.container.manifest import Manifest
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.digest import PREFIX, plain, text
from kvq_cli.errors import DigestError, ExpectationError
from kvq_cli.planes import raw_bytes
from kvq_cli.profile import Profile, load_calibration
from kvq_cli.record import record
from kvq_cli.steps.audited import Visitor
from kvq_cli.steps.chain import Link, check_follows, read_link
from kvq_cli.steps.choose import named_profile
from kvq_cli.steps.facts import load_shape
from kvq_cli.steps.identity import difference
from kvq_cli.steps.pages import OpenedPage, OpenedPiece, PageOpener, Stack
from kvq_cli.steps.verdict import Quality
from kvq_cli.words import Role

MOST: Final = 8  # differences that are named

Broken = dict[str, str]


@record
class Expected:
    """What the caller expects; None is no expectation."""

    profiles: Sequence[str | Path | Profile] = ()
    shapes: Sequence[str | Path] = ()
    content_root: str | None = None
    file_root: str | None = None
    min_ratio: float | None = None
    max_bytes: int | None = None
    calibration: str | Path | None = None
    continues: str | Path | None = None
    identity: Mapping[str, str] = field(default_factory=dict)


def find_broken(manifest: Manifest, end: Footer, expected: Expected) -> Iterator[Broken]:
    """Each expectation that does not hold."""
    for source in expected.profiles:
        yield from _profile(manifest, source)
    for path in expected.shapes:
        yield from _shape(manifest, load_shape(Path(path)))
    if differs := difference(manifest, expected.identity):
        yield _broken("E809", differs)
    for word, wanted, found in (
        ("content_root", expected.content_root, end.content_root),
        ("file_root", expected.file_root, end.file_root),
    ):
        if wanted is not None and wanted.removeprefix(PREFIX).lower() != found.hex():
            yield _broken("E803", f"{word} is {text(found)}, expected {wanted}")
    if expected.calibration is not None:
        wanted, named = load_calibration(expected.calibration).digest(), manifest.calibration_digest
        if named != wanted:
            yield _broken("E807", f"calibration is {named or 'none'}, expected {wanted}")
    if expected.continues is not None:
        yield from _continues(manifest, expected.continues)
    yield from _size(manifest, end.file_length, expected)


def _size(manifest: Manifest, size: int, expected: Expected) -> Iterator[Broken]:
    if expected.max_bytes is not None and size > expected.max_bytes:
        yield _broken("E804", f"{size} bytes, at most {expected.max_bytes} expected")
    ratio = manifest.source_bytes / size
    if expected.min_ratio is not None and ratio < expected.min_ratio:
        yield _broken(
            "E804", f"ratio {ratio:.4f} vs source, at least {expected.min_ratio} expected"
        )


def _continues(manifest: Manifest, path: str | Path) -> Iterator[Broken]:
    try:
        check_follows(read_link(path), Link(Path(), manifest, ""))
    except ExpectationError as error:
        yield _broken(error.error_id, str(error))


class Comparison(Visitor):
    """Holds every page's source digest against the bits of a capture.

    Without a capture, lossless pages are their own witness: they decode to the source's bits.
    """

    def __init__(self, capture: Capture | None) -> None:
        self._capture = capture
        tensors = capture.files.tensors if capture else ()
        self._tensors = {(tensor.file, tensor.name): tensor for tensor in tensors}
        self._digests: list[bytes | None] = []
        self.broken: list[Broken] = []
        self.told: Quality | None = None

    def begin(self, opener: PageOpener, files: Files) -> Comparison:
        self._opener = opener
        if self._capture is not None and _told(files) != _told(self._capture.files):
            self._differs("names, order or metadata of files or tensors are not the capture's")
        return self

    def pages(self, stack: Stack) -> list[bytes | None]:
        """The digest of each page's source bits; empty where the capture lacks such a page."""
        if self._capture is not None:
            return [self._source_digest(self._capture, page) for page in stack.pages]
        if not stack.kind.codec.lossless:
            return [None] * len(stack.pages)
        rows = self._opener.all_rows(stack)
        return [plain(raw_bytes(part)) for part in rows.reshape(len(stack.pages), -1)]

    def _source_digest(self, capture: Capture, page: OpenedPage) -> bytes:
        key, spec = page.record.key, page.kind.spec
        slab = capture.slabs.get((key.role, key.batch, key.layer))
        heads = self._opener.manifest.head_sets[key.head_set]
        if slab is None or slab.tokens < key.stop or slab.heads <= heads[-1]:
            return b""
        if (slab.channels, slab.dtype) != (spec.channels, spec.dtype):
            return b""
        bits = np.empty(spec.shape, spec.dtype.bits)
        read_rows(capture.source, slab, heads, key.start, key.stop, bits)
        return plain(raw_bytes(bits))

    def tensor(self, piece: OpenedPiece) -> str | None:
        if self._capture is None:
            return None
        entry = self._opener.manifest.tensors[piece.number]
        tensor = self._tensors.get((entry.file, entry.name))
        if tensor is not None and piece.at + len(piece.data) <= tensor.stop - tensor.start:
            data = bytearray(len(piece.data))
            self._capture.source.read_into(tensor.start + piece.at, data)
            if data == piece.data:
                return None
        return entry.name

    def took(self, header: ChunkHeader, found: Any) -> None:
        if isinstance(found, str):
            self._differs(f'tensor "{found}" is not the one in the capture')
        elif header.type == chunk.PAGE:
            self._digests.append(found)

    def leaf(self, payload: memoryview, offset: int) -> None:
        digests, self._digests = self._digests, []
        if not any(digest is not None for digest in digests):
            return
        _, entries = read_leaf(payload, offset)
        for entry, digest in zip(entries, digests, strict=True):
            if digest is not None and digest != entry.source_digest:
                if self._capture is None:
                    raise DigestError("source digest does not hold", entry.offset)
                key = entry.record.key
                heads = self._opener.manifest.head_sets[key.head_set]
                self._differs(
                    f"{key.role.word}, batch {key.batch}, layer {key.layer}, heads {list(heads)}, "
                    f"tokens {key.start}:{key.stop} do not come from this capture"
                )

    def quality(self, told: Quality) -> None:
        self.told = told

    def finish(self) -> None:
        """A capture that holds more than the container is another capture."""
        if self._capture is None:
            return
        parts = self._opener.manifest.parts_by_layer()
        for layer in self._capture.layers:
            part = parts.get(layer.layer)
            shape = (layer.batch, layer.heads, layer.tokens)
            if part is None or (part.batch, part.kv_heads, part.tokens) != shape:
                self._differs(f"layer {layer.layer} of the capture has another shape")

    def _differs(self, message: str) -> None:
        if len(self.broken) < MOST:
            self.broken.append(_broken("E805", message))


def _told(files: Files) -> list[object]:
    """What files say, however the text of their headers is arranged."""
    return [
        *((each.file, each.name, each.dtype, each.shape) for each in files.tensors),
        *((each.name, each.header.metadata if each.header else each.head) for each in files.files),
    ]


def _profile(manifest: Manifest, source: str | Path | Profile) -> Iterator[Broken]:
    profile = named_profile(source)
    digest = profile.digest()
    if isinstance(profile, Profile):
        wanted, recorded = profile.content_json(), list(manifest.profiles)
    else:
        role = Role[profile.role_policy.name].word
        wanted = profile.to_json()
        recorded = [each for each in manifest.profiles if role in each["roles"]]
    for each in recorded:
        if each["digest"] != digest:
            fields = ", ".join(list(_differences(wanted, each["profile"], ""))[:MOST])
            yield _broken(
                "E801", f"profile is {each['digest']}, expected {digest}; differs in {fields}"
            )


def _differences(wanted: Any, found: Any, pointer: str) -> Iterator[str]:
    """JSON pointers of members that differ."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in sorted(wanted.keys() | found.keys()):
            if key not in wanted or key not in found:
                yield f"{pointer}/{key}"
            else:
                yield from _differences(wanted[key], found[key], f"{pointer}/{key}")
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for at, pair in enumerate(zip(wanted, found, strict=True)):
            yield from _differences(*pair, f"{pointer}/{at}")
    elif wanted != found:
        yield pointer or "/"


def _shape(manifest: Manifest, wanted: KvTensorShapeV1) -> Iterator[Broken]:
    role = Role[wanted.role.name]
    shapes = [part.roles[role] for part in manifest.parts if role in part.roles]
    if any(shape.shape_digest == wanted.digest() for shape in shapes):
        return
    for shape in shapes:
        expected = wanted.to_json()
        fields = [name for name in expected if shape.shape.get(name) != expected[name]]
        told = [f"{name}: {shape.shape.get(name)}, expected {expected[name]}" for name in fields]
        digest = shape.shape_digest or "not told in full"
        yield _broken("E802", f"shape is {digest}, expected {wanted.digest()}; {'; '.join(told)}")
    if not shapes:
        yield _broken("E802", f"no {role.word}s, expected shape {wanted.digest()}")


def _broken(error_id: str, message: str) -> Broken:
    return {"error_id": error_id, "message": message}
